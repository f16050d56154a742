"""The sections `demo`, `data`, `prepare` and `validate`: which pairs there are, and which are let in."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from zerovl.params.filters import DrawValidParams, FilterParams
from zerovl.params.section import Section, require_different


class DemoParams(Section):
    """What the demo draws."""

    train_pairs: int = Field(1600, ge=10, description="training pairs a source")
    valid_pairs: int = Field(200, ge=10, description="validation pairs a source, of combinations never trained on")
    side: int = Field(64, ge=32, description="width and height of a picture in pixels")
    seed: int = Field(0, ge=0, description="the same seed draws the same bytes")


def _at_home(path: str) -> str:
    """Return a path that begins with `~` written out: DVC, which watches `data.raw`, knows no `~`."""
    return os.path.expanduser(path)


class SourceParams(Section):
    """One source of pairs, where it is not simply a folder of `data.raw`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    path: Annotated[str, AfterValidator(_at_home)] = Field(
        description="folder, or s3://bucket/prefix of WebDataset shards"
    )
    layout: Literal["auto", "zerovl", "karpathy", "webdataset", "table", "imagefolder", "coco"] = "auto"
    splits: list[Literal["train", "valid"]] = Field(default=["train", "valid"])
    evaluation_split: Literal["auto", "test", "val"] = Field(
        "auto", description="which split of its files is evaluated on; auto: test, of tars where nothing else is there"
    )
    txt_captions: Literal["auto", "one", "lines"] = Field(
        "auto",
        description="a .txt in tars: one caption, or one a line; auto: lines where dataset_type.txt says retrieval",
    )
    equal_pictures: Literal["auto", "separate", "together"] = Field(
        "auto",
        description="together: pictures of equal bytes are one, with the captions of all; auto: in a valid split "
        "without ids most of whose rows share their picture with another caption",
    )
    tars: Literal["packed", "in_place"] = Field(
        "packed", description="in_place: tars that are whole and sorted stay where they lie and are indexed, not packed"
    )
    json_caption: str = Field("", description="key of the .json in tars that has the caption; empty: `.txt`, `caption`")
    table: str = Field("", description="layout table: file or pattern, as pairs-*.parquet; empty: by its usual names")
    columns: dict[Literal["image", "caption", "image_id", "split"], str] = Field(
        default={}, description="layouts table and imagefolder: names of the columns, where they are not the usual ones"
    )
    pictures: Annotated[str, AfterValidator(_at_home)] = Field(
        "", description="layouts table, imagefolder and coco: folder of the pictures; empty: beside the table"
    )

    @model_validator(mode="after")
    def _in_place_keeps_samples(self) -> Self:
        if self.tars == "in_place" and self.equal_pictures == "together":
            raise ValueError(
                f"source {self.name!r}: tars in_place keeps samples as they are, equal_pictures together puts several "
                "into one; set tars to packed, or leave equal_pictures out"
            )
        return self


class DataParams(Section):
    """Which sources there are."""

    raw: Annotated[str, AfterValidator(_at_home)] = Field(
        "data/demo/raw", description="folder whose sub-folders are the sources (layouts: data/README.md)"
    )
    sources: list[SourceParams] = Field(
        default=[],
        description="sources by name instead: [{name, path, layout, splits, evaluation_split, txt_captions, "
        "equal_pictures, tars, json_caption, table, columns, pictures}, ...]",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        require_different((source.name for source in self.sources), "source names")
        return self


class PrepareParams(Section):
    """How sources are packed into shards."""

    shard_samples: int = Field(1000, ge=1, description="input samples a shard")
    max_side: int = Field(0, ge=0, description="larger pictures are reduced to this longest side; 0 keeps all bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="pictures with more pixels are quarantined unread")
    jpeg_quality: int = Field(95, ge=50, le=100, description="of pictures that do not keep their bytes")
    jpeg_chroma: Literal["full", "half", "quarter"] = Field(
        "full", description="of the same: resolution of colours, 4:4:4, 4:2:2 or 4:2:0"
    )
    max_caption_bytes: int = Field(10_000, ge=1, description="longer captions are quarantined")
    tokenizer_vocab: int = Field(
        600, ge=0, description="size of a WordPiece vocabulary learned from the captions; 0: the text tower's own"
    )
    filters: FilterParams = FilterParams()
    draw_valid: DrawValidParams = DrawValidParams()


class ValidateParams(Section):
    """Bounds of the rules over the manifest; a hard one stops the pipeline, a soft one warns."""

    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="hard: share of quarantined inputs")
    max_duplicate_fraction: float = Field(0.1, ge=0, le=1, description="soft: share of pictures seen before (sha256)")
    min_caption_words: int = Field(1, ge=1, description="soft: words in a caption")
    max_caption_words: int = Field(200, ge=1, description="soft: words in a caption")
    min_side: int = Field(16, ge=1, description="hard: shorter side of a picture in pixels")
    max_aspect: float = Field(8.0, ge=1, description="soft: longer side over shorter side")
    max_leaked: int = Field(0, ge=0, description="hard: valid pictures that are in train too (sha256)")
    max_near_leaked_fraction: float = Field(
        0.2, ge=0, le=1, description="soft: share of valid pictures within `near_distance` of a train picture"
    )
    near_distance: int = Field(2, ge=0, le=16, description="bits of the 64-bit perceptual hash that may differ")
    sample_rows: int = Field(20_000, ge=100, description="rows that Great Expectations looks at one by one")
    max_drift: float = Field(
        0.3, ge=0, description="soft: relative change of rows, caption length and picture size since the last verdict"
    )
    seed: int = Field(0, ge=0, description="draws the sample of rows")
