"""Read, merge, check and write `params.yaml`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write
from zerovl.log import logger
from zerovl.params import MachineParams, Params, Section, as_dict
from zerovl.params.later import WITHOUT_SECTION
from zerovl.text_format import plural
from zerovl.yaml_file import read_yaml, yaml_value

# Settings of `train` that moved to `machine`: they shape no weight, and no stage depends on them.
_MOVED = frozenset(MachineParams.model_fields) - {
    *("threads", "cache_features", "shards", "shard_cache", "keep_streams", "tracking", "gpu_wait_minutes"),
    *("checkpoint_copy", "shard_gathers", "shard_within"),
}
_FREE_FORM = ("options", "config")  # mappings whose keys are a library's
# Settings that came later than the file's form: a file without them means their defaults, or `WITHOUT_SECTION`.
_LATER = frozenset(
    {
        "prepare.draw_valid",
        "prepare.filters",
        "prepare.filters.semantic_duplicates",
        "prepare.jpeg_quality",
        "prepare.jpeg_chroma",
        "train.continue_from",
        "train.reading",
        "train.streaming",
        "train.loss",
        "train.equal_pairs",
        "train.pair_order",
        "train.shuffle",
        "train.block_shards",
        "train.epoch_of",
        "train.fine_tuning",
        "train.fine_tuning.temperature_lr_scale",
        "train.residual_stream",
        "train.ema_decay",
        "train.image_dropout",
        "train.image_size",
        "train.augment.flip_probability",
        "train.augment.decode",
        "train.text_dropout",
        "train.valid_set_pictures",
        "machine",
        "machine.cache_features",
        "machine.checkpoint_copy",
        "machine.decode_on",
        "machine.deterministic",
        "machine.gpu_wait_minutes",
        "machine.prefetch",
        "machine.shard_gathers",
        "machine.shard_within",
        "machine.shards",
        "machine.shard_cache",
        "machine.keep_streams",
        "machine.tracking",
        "evaluate.classification",
        "evaluate.folds",
        "register.gate.min_metrics",
        "register.when",
        "register.hooks",
        "register.keep",
        "register.gate.max_drops",
        "model.image_tower.batch_norm",
        "model.image_tower.weights",
        "model.interpolation",
        "model.resize_mode",
        "model.text_tower.pooling",
    }
)


# In place of pydantic's words, which are of Python.
_WRONG_KIND = {
    "list_type": "write a list, as [a, b]",
    "model_type": "write its keys with their values, as {key: value}",
    "dict_type": "write keys with their values, as {key: value}",
}


def load(path: Path | str = "params.yaml") -> Params:
    """Return the checked parameters of a complete file; raises `ZeroVLError` with every error in it."""
    return parse(read_yaml(path), str(path))


def came_later(key: str) -> bool:
    """Tell whether a setting came later than the file's form, so that a file without it means the default."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in _LATER for end in range(1, len(parts) + 1))


def parse(values: dict[str, Any], origin: str) -> Params:
    """Return the checked parameters of a whole mapping of sections; `origin` names it in messages.

    Raises `ZeroVLError` with all mistakes at once, each with key, value and fix.
    """
    values = move_to_machine(values, origin)
    problems = [f"{key}: missing; add it (the demo has {default!r})" for key, default in _missing(Params, values)]
    try:
        params = Params.model_validate(with_older_meaning(values))
    except ValidationError as error:
        problems += [_describe(item) for item in error.errors()]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ZeroVLError(f"{origin}: {plural(len(problems), 'error')}\n{lines}")
    return params


def with_older_meaning(values: dict[str, Any]) -> dict[str, Any]:
    """Return a file's sections, with what was done before there were sections that it lacks."""
    for key, before in WITHOUT_SECTION.items():
        section, _, name = key.partition(".")
        there = values.get(section)
        if isinstance(there, dict) and name not in there:
            values = values | {section: there | {name: before}}
    return values


def move_to_machine(values: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return `values` with the settings of `train` that are `machine`'s now moved there; says so once a call.

    A file of before has no section `machine` at all: what it does not set takes the defaults.
    """
    train = values.get("train")
    moved = sorted(_MOVED & train.keys()) if isinstance(train, dict) else []
    if not moved or not isinstance(train, dict):
        return values
    machine = values.get("machine")
    before = as_dict(MachineParams()) if machine is None else machine
    if not isinstance(before, dict):
        return values  # pydantic reports the wrong type
    logger().info(
        f"{origin}: taken from the section train to the section machine, which holds what does not shape the model: "
        f"{', '.join(moved)}; move them there yourself, and this line goes away"
    )
    rest = {name: value for name, value in train.items() if name not in _MOVED}
    return values | {"train": rest, "machine": before | {name: train[name] for name in moved}}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; free-form mappings (`options`, `config`) are replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict) and key not in _FREE_FORM
        merged[key] = merge(base[key], value) if nested else value
    return merged


def from_recipe(recipe: dict[str, Any], overrides: list[str], origin: str) -> Params:
    """Return the demo's values with a recipe and then `key.path=value` overrides laid over them.

    A text tower that an override names takes the place of one from scratch, whose config is emptied.

    Raises `ZeroVLError` as `parse` does, and for an override of another form; `origin` names the recipe.
    """
    values = before = merge(as_dict(Params()), _changes(_with_older_meaning_where_whole(recipe), origin))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ZeroVLError(f"override {override!r}: expected key=value, as in train.lr=1e-3")
        change = _nested(values, key.split("."), yaml_value(text))
        values = merge(values, _changes(change, f"override {override}"))
    if _gets_a_name(before, values):
        values = merge(values, {"model": {"text_tower": {"config": {}}}})
    return parse(values, origin)


def _gets_a_name(before: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether the text tower has got a name, and still has the config that it had."""
    old, new = (_mapping(_mapping(each.get("model")).get("text_tower")) for each in (before, values))
    return bool(new.get("name")) and new.get("name") != old.get("name") and new.get("config") == old.get("config")


def _with_older_meaning_where_whole(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe in which sections with all of their keys, as a params.yaml has them, mean what they do there."""
    whole = {
        key: recipe[key]
        for name, field in Params.model_fields.items()
        if (key := field.alias or name) in recipe
        and isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and not _missing(field.annotation, recipe[key], f"{key}.")
    }
    return recipe | with_older_meaning(whole)


def _nested(values: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a change of one key of `values`; a free-form mapping on its way comes whole, with that key changed."""
    first, rest = path[0], path[1:]
    if not rest:
        return {first: value}
    held = _mapping(values.get(first))
    return {first: _set(held, rest, value) if first in _FREE_FORM else _nested(held, rest, value)}


def _set(held: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, rest = path[0], path[1:]
    return {**held, first: _set(_mapping(held.get(first)), rest, value) if rest else value}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _changes(values: dict[str, Any], origin: str) -> dict[str, Any]:
    """As `move_to_machine`, for values that are laid over others: nothing else of `machine` is set."""
    return move_to_machine({"machine": {}, **values}, origin)


def continued(params: Params, reference: str) -> Params:
    """Return the parameters with `train.continue_from` set to RUN@STEP."""
    values = merge(as_dict(params), {"train": {"continue_from": reference}})
    return parse(values, f"--from {reference}")


def write(params: Params, path: Path | str, head: str = "") -> None:
    """Write a parameter file with each field's sentence as a comment."""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for name, field in Params.model_fields.items():
        section = getattr(params, name)
        lines += ["", f"{field.alias or name}:"] if lines else [f"{field.alias or name}:"]
        lines += [f"  {line}" for line in _section_lines(section)]
    with atomic_write(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def _section_lines(section: Section) -> list[str]:
    lines = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            lines.append(f"{name}:")
            lines += [f"  {line}" for line in _section_lines(value)]
            continue
        plain = section.model_dump(mode="json", include={name})[name]
        text = _flow_yaml(plain)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        comment = field.description or ""
        if choices:
            comment += f" ({' | '.join(map(str, choices))})"
        entry = f"{name}: {text}"
        lines += (
            [f"{entry}  # {comment}"]
            if len(entry) + len(comment) < 108
            else [
                *(f"# {line}" for line in textwrap.wrap(comment, 108)),
                entry,
            ]
        )
    return lines


def _flow_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def _missing(model: type[BaseModel], values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(values, dict):
        return []  # pydantic reports the wrong type
    found: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in values:
            if prefix + key in _LATER:
                continue
            default = field.default
            found.append((prefix + key, as_dict(default) if isinstance(default, BaseModel) else default))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _missing(field.annotation, values[key], f"{prefix}{key}.")
    return found


def close_to(loc: Sequence[Any]) -> str:
    """Return the known dotted key that the parts of one are most like, itself where it is known; "" where none is."""
    said = list[str]()
    section: Any = Params
    for part in loc:
        inner = isinstance(section, type) and issubclass(section, BaseModel)
        fields = section.model_fields.items() if inner else ()
        types = {field.alias or name: field.annotation for name, field in fields}
        near = [part] if part in types else get_close_matches(str(part), types, 1)
        if not near:
            return ""
        said += near
        section = types[near[0]]
    return ".".join(said)


def _describe(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        text = f"{key}: unknown key (value {item['input']!r}); remove it or correct its spelling"
        return f"{text} ({like}?)" if (like := close_to(item["loc"])) else text
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
    message = _WRONG_KIND.get(item["type"]) or item["msg"][0].lower() + item["msg"][1:]
    return f"{key}: {item['input']!r} is not accepted: {message}"
