"""YAML as people write it: a key once a mapping, numbers as they mean them, faults in one line."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from zerovl.errors import ZeroVLError

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a PyYAML that was built without libyaml has its own alone


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return a YAML mapping; a missing file, broken YAML, a key twice or anything else is a `ZeroVLError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ZeroVLError(f"{path}: no such file; run in the project's folder, or name a file that exists") from None
    except UnicodeDecodeError as error:
        raise ZeroVLError(f"{path}: not valid YAML: {error}") from None
    return yaml_mapping(text, str(path))


def yaml_mapping(text: str, origin: str) -> dict[str, Any]:
    """Return the mapping of a text, which `origin` names in messages; raises `ZeroVLError` as `read_yaml` does."""
    try:
        values = _load(text)
    except yaml.YAMLError as error:
        raise ZeroVLError(f"{origin}: not valid YAML: {_where(error)}") from None
    if not isinstance(values, dict):
        raise ZeroVLError(f"{origin}: holds {type(values).__name__}, expected a mapping of sections")
    return values


def yaml_value(text: str) -> Any:
    """Return a value as typed by a user; unlike bare YAML 1.1, `1e-4` is a number.

    Raises `ZeroVLError` for what is not YAML.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ZeroVLError(f"value {text!r}: not valid YAML ({_where(error)})") from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


class _Loader(yaml.SafeLoader):
    """YAML in which a key comes once a mapping; PyYAML would take the last one without a word."""


class _QuickLoader(_Parser):  # type: ignore[misc, valid-type]
    """The same by libyaml, which takes a tenth of the time."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if isinstance(key, Hashable) and key in lines:
            raise yaml.YAMLError(f"line {line}: key {key!r} stands in line {lines[key]} already; keep one of them")
        if isinstance(key, Hashable):
            lines[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_QuickLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _load(text: str) -> Any:
    """Return what PyYAML's own parser makes of a text, by libyaml where both read it alike.

    What libyaml refuses is read again: some of it is good YAML, and of the rest the words are those of PyYAML. A tab
    before a value is nothing to libyaml and a fault to PyYAML.
    """
    if "\t" not in text:
        with suppress(yaml.YAMLError, UnicodeError):
            return yaml.load(text, _QuickLoader)
    return yaml.load(text, _Loader)


def _where(error: yaml.YAMLError) -> str:
    """Return what PyYAML says in one line, with line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
