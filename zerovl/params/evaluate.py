"""The section `evaluate`: what is measured beside retrieval, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from zerovl.params.section import Section, require_different

TEMPLATE_SETS = ("auto", "name", "photo", "openai-imagenet-7", "openai-imagenet-80")


def _templates(value: object) -> object:
    if isinstance(value, str) and value in TEMPLATE_SETS:
        return value
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is not accepted: give one of {', '.join(TEMPLATE_SETS)}, or a list of templates")
    if lacking := [one for one in value if "{}" not in one and "{c}" not in one]:
        raise ValueError(f"template {lacking[0]!r} has no place for the class; write {{}} where its name goes")
    return value


Templates = Annotated[str | list[str], PlainValidator(_templates)]


class ClassificationParams(Section):
    """A set of pictures with classes; `folder`, `csv` or `shards` says where it lies (docs/evaluation.md)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="of its metrics, as in NAME.top1")
    folder: str = Field("", description="its sub-folders are the classes")
    csv: str = Field("", description="file with the columns image and class")
    shards: str = Field("", description="folder in CLIP_benchmark's layout: test/*.tar, classnames.txt")
    classnames: str = Field("", description="file of names, one a line in the order of the classes; empty: the set's")
    templates: Templates = Field("auto", description="what a class is called: a named list, or templates with {}")
    measures: list[Literal["zero_shot", "linear_probe", "paper_probe", "paper_probe_augmented"]] = Field(
        ["zero_shot"],
        min_length=1,
        description="by captions of the classes, by a linear layer on the image tower, by one fitted as the paper does "
        "and by one fitted so with its augmentation, for 90 passes through the tower",
    )

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> Self:
        given = [key for key in ("folder", "csv", "shards") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"{self.name} needs one of folder, csv and shards, found {found}; keep or give one")
        if self.name == "retrieval":
            raise ValueError("name retrieval is that of another evaluator; choose another one")
        return self


class EvaluateParams(Section):
    """How the model is scored, and what its report shows."""

    batch_size: int = Field(128, ge=1, description="pictures or captions encoded at once")
    chunk: int = Field(
        1024, ge=1, description="captions ranked at once, with a quarter as many pictures; bounds the memory"
    )
    bootstrap: int = Field(1000, ge=10, description="resamples of the 95% interval")
    gallery: int = Field(8, ge=0, description="queries shown in the report, a direction")
    sample: int = Field(
        16, ge=0, description="validation pairs that go with a release, to check it when an alias moves; 0: none"
    )
    seed: int = Field(0, ge=0, description="of the bootstrap, of the sample and of the untrained baseline")
    folds: int = Field(
        0,
        ge=0,
        description="pictures of a fold, within which retrieval is scored too; 1000: as COCO is reported; 0: no folds",
    )
    classification: list[ClassificationParams] = Field(
        default=[],
        description="sets of pictures with classes: [{name, folder | csv | shards, classnames, templates, "
        "measures}, ...] "
        "(docs/evaluation.md)",
    )

    @model_validator(mode="after")
    def _sets_differ(self) -> Self:
        require_different((its.name for its in self.classification), "names of classification")
        return self
