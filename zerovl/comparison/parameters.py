"""Find the parameters that differ between subjects, by the names that params.yaml gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from zerovl import params_file
from zerovl.comparison.subject import Subject
from zerovl.params import Params, as_dict

UNKNOWN = "-"  # what is shown where a subject does not say
_POOLING = "model.text_tower.pooling"
_FREE_FORM = ("options", "config")  # mappings whose keys are the tower's own


@dataclass(frozen=True)
class Parameter:
    """A key whose value is not the same everywhere, with the value of each subject as text."""

    key: str
    values: tuple[str, ...]


def by_key(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return sections of params.yaml as dotted keys.

    Settings that came later than the file have what it means without them, so that an older file differs by what it
    says alone; others that it lacks stay unknown. What today's code cannot read is returned as it is. `origin` is for
    messages.
    """
    values = params_file.move_to_machine(dict(values), origin)
    said = _flat(values)
    others = {name: section for name, section in as_dict(Params()).items() if name not in values}
    try:
        whole = _flat(as_dict(Params.model_validate({**others, **params_file.with_older_meaning(values)})))
    except ValidationError:
        return said
    return {
        key: value
        for key, value in whole.items()
        if key.partition(".")[0] in values and (key in said or params_file.came_later(key))
    }


def differing(subjects: Sequence[Subject]) -> list[Parameter]:
    """Return the keys that not all who know of them give the same value, in the order of params.yaml."""
    found = []
    for key in dict.fromkeys(key for subject in subjects for key in subject.params):
        said = {repr(its.params.get(key)) for its in subjects if _knows(its.params, key)}
        if key == _POOLING:  # a run says what "auto" came to, params.yaml does not
            said.discard(repr("auto"))
        if len(said) > 1:
            values = (_text(its.params[key]) if key in its.params else UNKNOWN for its in subjects)
            found.append(Parameter(key, tuple(values)))
    return found


def _knows(params: Mapping[str, Any], key: str) -> bool:
    """Whether a subject says something of a key, be it that a free-form mapping of its lacks it."""
    parts = key.split(".")
    free = next((".".join(parts[: place + 1]) for place, part in enumerate(parts) if part in _FREE_FORM), None)
    return key in params or (free is not None and any(name == free or name.startswith(f"{free}.") for name in params))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _text(value: Any) -> str:
    """A value as params.yaml has it, lists and mappings in one line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(its)}" for name, its in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value) if value != "" else '""'
