"""What tables and folders call their splits, and which of them are ours."""

from __future__ import annotations

from collections.abc import Collection

from zerovl.data.raw.layout import SPLITS

TRAIN = ("train", "restval")
_OWN = ("valid",)
EVALUATED = {"test": ("test",), "val": ("validation", "val", "dev")}  # by `evaluation_split`
NAMES = frozenset((*TRAIN, *_OWN, *EVALUATED["test"], *EVALUATED["val"]))


def chosen_names(present: Collection[str], evaluation_split: str) -> dict[str, frozenset[str]]:
    """Return by our splits which of the names that are present belong to them, without those that have none.

    Evaluated is `valid`; where there is none, what `evaluation_split` asks for (`test`, or `val` by any of its names);
    where there is none of that either, the other. What remains is left out.
    """
    other = "val" if evaluation_split == "test" else "test"
    ranks = (_OWN, EVALUATED[evaluation_split], EVALUATED[other])
    evaluated = next((names for names in ranks if set(names) & set(present)), ())
    wanted = dict(zip(SPLITS, (TRAIN, evaluated), strict=True))
    chosen = {split: frozenset(names) & frozenset(present) for split, names in wanted.items()}
    return {split: names for split, names in chosen.items() if names}


def split_named(name: str) -> str:
    """Return the split that a name begins with: `train`, `train-00000-of-00002`; "" where it is none."""
    begin = name.split(".")[0].split("-")[0].lower()
    return begin if begin in NAMES else ""
