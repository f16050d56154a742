"""Types of parameters that several flows share; the UI's form takes what it says from the flows' docstrings."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

KnownRecipe = Literal[
    "params.yaml", "demo", "photos", "small-real", "sbu-cc3m", "zerovl-14m", "coco-finetune", "flickr30k-finetune"
]
# Patterns begin with no dash: what someone types into a form must not be read as an option.
OwnRecipe = Annotated[
    str, Field(title="A file of your own", pattern=r"^[^-\s].*\.ya?ml$", examples=["recipes/mine.yaml"])
]
Recipe = Annotated[KnownRecipe, Field(title="One by name")] | OwnRecipe
Override = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*=")]
Overrides = Annotated[list[Override], Field(examples=[["train.epochs=4", "train.lr=1e-3"]])]
After = Literal["nothing", "register", "promote if better"]
Release = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^@/ ]*@[A-Za-z0-9][^@/ ]*$", examples=["zerovl@3"])]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*$")]
Why = Annotated[str, Field(min_length=3)]


def recipe_file(recipe: Recipe) -> str:
    """Return the name of a recipe as `zerovl recipe` takes it; one of one's own is a file already."""
    known = recipe in get_args(KnownRecipe) and recipe not in ("params.yaml", "demo")
    return f"recipes/{recipe}.yaml" if known else recipe
