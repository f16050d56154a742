"""Say what classes of a set have no picture, or one alone, in the log, the report and the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zerovl.text_format import names, plural

# Keys in the details of a set, each with the names of classes.
WITHOUT = "without_pictures"
SINGLE = "with_one_picture"  # of a set whose probes learn from folds of itself
SINGLE_IN_TRAIN = "with_one_picture_in_train"
_NAMED = 5


def sentences(details: Mapping[str, Any]) -> list[str]:
    """Return what classes with few pictures mean for the scores; nothing where there are none in the details."""
    return [f"{sentence(details[key])}." for key, sentence in _SENTENCES.items() if details.get(key)]


def _without(classes: Sequence[str]) -> str:
    count, which = plural(len(classes), "class has", "classes have"), "it" if len(classes) == 1 else "them"
    return (
        f"{count} no picture that can be read ({names(classes, _NAMED)}): pictures may still be taken for {which}, and "
        f"mean_class leaves {which} out"
    )


def _single(classes: Sequence[str]) -> str:
    count = plural(len(classes), "class has", "classes have")
    return (
        f"{count} one picture that can be read ({names(classes, _NAMED)}): linear probes learn from it in every fold, "
        "and it is not among the pictures that they are scored on"
    )


def _single_in_train(classes: Sequence[str]) -> str:
    count = plural(len(classes), "class has", "classes have")
    return (
        f"{count} one picture in train that can be read ({names(classes, _NAMED)}): linear probes learn from it, and "
        "their penalty is chosen without it"
    )


_SENTENCES: dict[str, Callable[[Sequence[str]], str]] = {
    WITHOUT: _without,
    SINGLE: _single,
    SINGLE_IN_TRAIN: _single_in_train,
}
