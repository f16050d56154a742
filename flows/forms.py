"""Types of parameters that several flows share; the UI's form takes what it says from the flows' docstrings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Recipe = Literal[
    "params.yaml", "demo", "photos", "small-real", "sbu-cc3m", "zerovl-14m", "coco-finetune", "flickr30k-finetune"
]
# Patterns begin with a letter or digit: what someone types into a form must not be read as an option.
Override = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*=")]
Overrides = Annotated[list[Override], Field(examples=[["train.epochs=4", "train.lr=1e-3"]])]
After = Literal["nothing", "register", "promote if better"]
Release = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^@/ ]*@[A-Za-z0-9][^@/ ]*$", examples=["zerovl@3"])]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$")]
Why = Annotated[str, Field(min_length=3)]


def recipe_file(recipe: Recipe) -> str:
    """Return the name of a recipe as `zerovl recipe` takes it."""
    return recipe if recipe in ("params.yaml", "demo") else f"recipes/{recipe}.yaml"
