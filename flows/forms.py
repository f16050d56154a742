"""Types of parameters that several flows share; the UI's form takes what it says from the flows' docstrings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Recipe = Literal["params.yaml", "demo", "small-real", "sbu-cc3m", "zerovl-14m", "coco-finetune", "flickr30k-finetune"]
Overrides = Annotated[list[str], Field(examples=[["train.epochs=4", "train.lr=1e-3"]])]
After = Literal["nothing", "register", "promote if better"]
Release = Annotated[str, Field(pattern=r"^[^@/ ]+@[^@/ ]+$", examples=["zerovl@3"])]
Why = Annotated[str, Field(min_length=3)]


def recipe_file(recipe: Recipe) -> str:
    """What `zerovl recipe` takes."""
    return recipe if recipe in ("params.yaml", "demo") else f"recipes/{recipe}.yaml"
