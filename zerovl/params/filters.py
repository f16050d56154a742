"""The sections `prepare.filters` and `prepare.draw_valid`: what is unwanted though not broken, and what is held out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zerovl.params.section import Section

Script = Literal[
    "arabic",
    "armenian",
    "bengali",
    "cyrillic",
    "devanagari",
    "ethiopic",
    "georgian",
    "greek",
    "gujarati",
    "gurmukhi",
    "han",
    "hangul",
    "hebrew",
    "hiragana",
    "kannada",
    "katakana",
    "khmer",
    "lao",
    "latin",
    "malayalam",
    "myanmar",
    "sinhala",
    "tamil",
    "telugu",
    "thai",
    "tibetan",
]


class AgreementParams(Section):
    """Training captions that do not fit their picture, by the cosine of a model's embeddings."""

    model: str = Field("", description="a bundle's folder, NAME@ALIAS or NAME@VERSION; empty: nothing is scored")
    min_score: float = Field(-1.0, ge=-1, le=1, description="captions with a smaller cosine to their picture go")
    keep_fraction: float = Field(1.0, gt=0, le=1, description="share of a source's captions that stay, the best ones")

    @model_validator(mode="after")
    def _have_a_model_and_a_bound(self) -> Self:
        bounded = (self.min_score, self.keep_fraction) != (-1.0, 1.0)
        if bounded != bool(self.model):
            raise ValueError(
                f"model is {self.model!r}, min_score {self.min_score:g} and keep_fraction {self.keep_fraction:g}; "
                "name a model and set one of the two bounds, or neither"
            )
        return self


class SemanticDuplicatesParams(Section):
    """Training pictures that are nearly the same, by the cosine of a model's embeddings; of such the first stays."""

    model: str = Field("", description="a bundle's folder, NAME@ALIAS or NAME@VERSION; empty: nothing is compared")
    max_cosine: float = Field(1.0, gt=0, le=1, description="pictures with a larger cosine to one that stays go")
    compared: Literal["all", "source"] = Field(
        "all", description="pictures are compared with those of all sources, or of their own alone"
    )
    cluster_pictures: int = Field(
        4000, ge=2, description="most pictures of a cluster, within which all are compared: more find more, slower"
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="of the clusters")

    @model_validator(mode="after")
    def _have_a_model_and_a_bound(self) -> Self:
        if (self.max_cosine != 1.0) != bool(self.model):
            raise ValueError(
                f"model is {self.model!r} and max_cosine {self.max_cosine:g}; name a model and set max_cosine below 1, "
                "or neither"
            )
        return self


class FilterParams(Section):
    """What is left out, and counted with its reason; 0, an empty list and `keep` leave nothing out.

    Of captions, single ones are left out, and a picture goes with its last one. All other filters leave out a
    picture with all of its captions. On by default is what the hard rules of `ValidateParams` would refuse of a single
    picture, within their own defaults: one tiny or leaked picture is no reason to stop the pipeline.
    """

    min_side: int = Field(16, ge=0, description="pictures with a shorter side are left out, pixels as stored; 0: none")
    max_aspect: float = Field(0.0, ge=0, description="pictures whose longer side over the shorter is more; 0: none")
    min_area: int = Field(0, ge=0, description="pictures of fewer pixels, width times height as stored; 0: none")
    min_caption_words: int = Field(0, ge=0, description="captions of fewer words; 0: none")
    max_caption_words: int = Field(0, ge=0, description="captions of more words; 0: none")
    min_caption_characters: int = Field(0, ge=0, description="captions of fewer characters; 0: none")
    max_caption_characters: int = Field(0, ge=0, description="captions of more characters; 0: none")
    scripts: list[Script] = Field(
        default=[], description="writing systems of captions, as [latin] or [han, hiragana, katakana]; empty: any"
    )
    min_script_share: float = Field(
        0.5, gt=0, le=1, description="captions of whose letters a smaller share is of `scripts` are left out"
    )
    leaks: Literal["keep", "exact", "near"] = Field(
        "exact", description="training loses the pictures that valid has too, by their bytes or by their looks"
    )
    duplicates: Literal["keep", "exact", "near"] = Field(
        "keep", description="of equal or alike pictures one stays, that of valid before that of train"
    )
    near_distance: int = Field(
        2, ge=0, le=8, description="bits of the 64-bit perceptual hash that may differ between pictures that are near"
    )
    semantic_duplicates: SemanticDuplicatesParams = SemanticDuplicatesParams()
    max_caption_repeats: int = Field(
        0, ge=0, description="captions that training has more often are left out, all copies; 0: none"
    )
    max_caption_share: float = Field(
        0.0, ge=0, le=1, description="captions that are a larger share of training's are left out, all copies; 0: none"
    )
    agreement: AgreementParams = AgreementParams()

    @model_validator(mode="after")
    def _leave_something(self) -> Self:
        if 0 < self.max_aspect < 1:
            raise ValueError(
                f"max_aspect is {self.max_aspect:g}, and the longer side over the shorter is 1 or more; set it to 1 or "
                "more, or to 0 to leave it off"
            )
        for unit in ("words", "characters"):
            least, most = (getattr(self, f"{bound}_caption_{unit}") for bound in ("min", "max"))
            if 0 < most < least:
                raise ValueError(
                    f"min_caption_{unit} is {least} and max_caption_{unit} is {most}: no caption is left; "
                    "exchange them, or set one to 0"
                )
        return self


class DrawValidParams(Section):
    """A valid split drawn from the training pictures of each source that has none and may have one."""

    fraction: float = Field(0.0, ge=0, lt=1, description="share of the pictures that are drawn; 0: none")
    near_distance: int = Field(
        2, ge=0, le=8, description="bits of the 64-bit perceptual hash that may differ between pictures kept together"
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="another seed draws other pictures")
