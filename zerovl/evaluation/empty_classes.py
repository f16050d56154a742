"""Say that classes of a set have no picture: in the log, the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zerovl.text_format import names, plural

KEY = "without_pictures"  # in the details of a set
_NAMED = 5


def sentence(classes: Sequence[str]) -> str:
    """Return what it means for the scores; `classes` are those that have no picture."""
    count, which = plural(len(classes), "class has", "classes have"), "it" if len(classes) == 1 else "them"
    return (
        f"{count} no picture that can be read ({names(classes, _NAMED)}): pictures may still be taken for {which}, and "
        f"mean_class leaves {which} out"
    )


def sentence_of(details: Mapping[str, Any]) -> str:
    """Return the sentence for the details of a set, "" where all of its classes have pictures."""
    return f"{sentence(details[KEY])}." if details.get(KEY) else ""
