"""Settings of `params.yaml` as the form offers them: a key, found by its name or a word of its sentence, and a value.

The server checks a value against its key's kind before it makes a run; limits, and what goes together, are checked by
the run before anything else.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from zerovl.params import Params, Section, as_dict

# Text of a form's field, so numbers are known by how they look; simple, for the form shows the pattern.
_WHOLE = {"pattern": "^[-+]?[0-9]+$"}
_NUMBER = {"pattern": "^[-+.0-9][-+.0-9eE]*$"}
_YES_OR_NO = {"enum": ["true", "false"]}
_BY_TYPE: dict[Any, dict[str, Any]] = {int: _WHOLE, float: _NUMBER, bool: _YES_OR_NO}


@dataclass(frozen=True)
class Offer:
    """A key as the form's list has it."""

    key: str
    sentence: str
    demo: Any  # its value in the demo, plain YAML
    annotation: Any  # its type in `zerovl.params`

    @property
    def text(self) -> str:
        """Return the line of the list; the form's value is this line too."""
        choices = get_args(self.annotation) if get_origin(self.annotation) is Literal else ()
        said = [" | ".join(choices)] if choices else []
        said.append(f"demo: {textwrap.shorten(json.dumps(self.demo, ensure_ascii=False), 60, placeholder=' ...')}")
        return f"{self.key}: {self.sentence} ({'; '.join(said)})"

    @property
    def rule(self) -> dict[str, Any] | None:
        """Return what a value's text must be, as JSON schema; None for lists, mappings, paths and the like."""
        if get_origin(self.annotation) is Literal:
            return {"enum": list(get_args(self.annotation))}
        return _BY_TYPE.get(self.annotation)


def offers() -> Iterator[Offer]:
    """Give every key of `params.yaml`, in the file's order."""
    yield from _of_section(Params(), as_dict(Params()), "")


def _of_section(section: Section, plain: dict[str, Any], above: str) -> Iterator[Offer]:
    for name, field in type(section).model_fields.items():
        value, called = getattr(section, name), field.alias or name
        if isinstance(value, Section):
            yield from _of_section(value, plain[called], f"{above}{called}.")
        else:
            yield Offer(f"{above}{called}", field.description or "", plain[called], field.annotation)


def _rules() -> list[JsonValue]:
    """Return for each kind of value which keys have it, as JSON schema of a setting."""
    keys: dict[str, list[JsonValue]] = {}
    for offer in offers():
        if offer.rule:
            keys.setdefault(json.dumps(offer.rule), []).append(offer.text)
    return [
        {
            "if": {"properties": {"key": {"enum": texts}}, "required": ["key"]},
            "then": {"properties": {"value": json.loads(rule)}},
        }
        for rule, texts in keys.items()
    ]


class Setting(BaseModel):
    """A key of params.yaml and the value that it is to have."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"allOf": _rules()})

    key: str = Field(
        description="search by its name, or by a word of its sentence",
        json_schema_extra={"enum": [offer.text for offer in offers()]},
    )
    value: str = Field(description="as params.yaml has it: 3e-4, true, photos, [image, text]; '' for an empty text")


Settings = list[Setting]


def as_overrides(settings: Iterable[Setting]) -> list[str]:
    """Return settings as `key=value`, as `zerovl recipe` takes them."""
    return [f"{setting.key.partition(':')[0].strip()}={setting.value.strip()}" for setting in settings]
