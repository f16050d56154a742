"""`zerovl recipe`: write `params.yaml` from the demo's values and what a recipe changes."""

from __future__ import annotations

from pathlib import Path

from zerovl import params_file


def apply(recipe: str, overrides: list[str], out: Path) -> None:
    """Write `out`; always starts from the demo's values, so nothing of an earlier recipe stays behind."""
    changes = {} if recipe == "demo" else params_file.read_yaml(recipe)
    settings = params_file.from_recipe(changes, overrides, recipe)
    origin = " ".join([recipe, *overrides])
    params_file.write(
        settings, out, head=f"Written by: zerovl recipe {origin}\nEvery key is needed; its sentence says what it does."
    )
    print(f"{out}: written from {origin}; next: dvc repro")
