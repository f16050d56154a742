"""`zerovl recipe`: write `params.yaml` from the demo's values and what a recipe changes, or from what the data are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zerovl import params_file
from zerovl.commands.missing_inputs import missing_inputs
from zerovl.errors import ZeroVLError
from zerovl.params import Params
from zerovl.text_format import plural, table
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml

AUTO, DEMO = "auto", "demo"
FOLDER = "recipes"
_DRAWING = {"prepare", "prepare.draw_valid", "prepare.draw_valid.fraction"}
OWN_RAW = "data/raw"  # where README.md says that one's own sources go
# Fit whatever they follow from: the demo's own would be held against a setting that is given, before they are chosen.
_UNTIL_CHOSEN = {"model": {"resize_size": 1 << 16}, "train": {"micro_batch": "auto"}}


def apply(recipe: str, overrides: list[str], out: Path) -> None:
    """Write `out`; always starts from the demo's values, so nothing of an earlier recipe stays behind.

    Raises:
        ZeroVLError: there is no such recipe, an override is wrong, or `auto` finds no data to choose for.
    """
    if recipe == AUTO:
        _apply_chosen(overrides, out)
        return
    changes = {} if recipe == DEMO else _read(recipe)
    _write(changes, recipe, overrides, out, [])


def _read(recipe: str) -> dict[str, Any]:
    """Return the changes of a recipe; where there is no such file, the message lists what there is."""
    if not Path(recipe).exists():
        files = [path.as_posix() for path in sorted(Path(FOLDER).glob("*.yaml"))]
        raise ZeroVLError(f"{recipe}: no such recipe; name {', '.join([AUTO, DEMO, *files])} or a file of your own")
    return read_yaml(recipe)


def _apply_chosen(overrides: list[str], out: Path) -> None:
    """Write settings for the data that there are; each choice is printed and stands with its reason in the head."""
    from zerovl.data.survey import survey
    from zerovl.planning import first_try
    from zerovl.planning.set_aside import set_aside

    workspace = Workspace()
    keys = {override.partition("=")[0] for override in overrides}
    own = {"data": {"raw": OWN_RAW}} if Path(OWN_RAW).is_dir() and not keys & {"data.raw", "data.sources"} else {}
    params = params_file.from_recipe({**own, **_UNTIL_CHOSEN}, overrides, AUTO)
    found = survey(params, workspace)
    refused = {source.name for source in params.data.sources if "valid" not in source.splits}
    drawn = [] if keys & _DRAWING else first_try.drawing(found, refused)
    left = set_aside(found, drawn[0].value if drawn else params.prepare.draw_valid.fraction, refused)
    given = first_try.Given(
        batch_size=params.train.batch_size if "train.batch_size" in keys else None,
        epochs=params.train.epochs if "train.epochs" in keys else None,
        image_size=params.model.image_size if "model.image_size" in keys else None,
        image_tower=params.model.image_tower.name != Params().model.image_tower.name,
        text_tower=bool(params.model.text_tower.name),
    )
    named = given.a_tower or keys & {"model.image_tower.name", "model.text_tower.name"}
    towers = None if named else first_try.find_towers(workspace.root)  # a pair
    chosen = [*drawn, *(choice for choice in first_try.choose(left, towers, given) if choice.key not in keys)]
    changes: dict[str, Any] = own
    for choice in chosen:
        changes = params_file.merge(changes, _nested(choice.key, choice.value))
    origin = f"{found.pairs:,} training pairs of {plural(len(found.train), 'source')} ({found.origin})"
    reasons = [f"{choice.key}: {_text(choice.value)}: {choice.reason}" for choice in chosen]
    settings = _write(changes, AUTO, overrides, out, ["", f"Chosen for {origin}:", *reasons])
    print(f"chosen for {origin}:")
    print(table([(f"  {choice.key}", _text(choice.value), choice.reason) for choice in chosen]))
    for note in first_try.notes(left, towers, given):
        print(f"note: {note}")
    if "register.name" not in keys and _has_releases(settings, workspace):
        name = settings.register_.name
        print(
            f"note: register.name is {name}, which has releases in {settings.register_.store}; a model of these data "
            f"may take {name}@production from them; give another register.name where it is not their successor"
        )


def _has_releases(settings: Params, workspace: Workspace) -> bool:
    """Whether there are releases of the model's name; a store on the network is not asked."""
    from zerovl.registry.registry import Registry
    from zerovl.registry.stores import open_store, store_uri

    store = settings.register_.store
    return "://" not in store and bool(
        Registry(open_store(store_uri(store, workspace.shared))).numbers(settings.register_.name)
    )


def _write(changes: dict[str, Any], recipe: str, overrides: list[str], out: Path, reasons: list[str]) -> Params:
    settings = params_file.from_recipe(changes, overrides, recipe)
    origin = " ".join([recipe, *overrides])
    head = [f"Written by: zerovl recipe {origin}", "Every key is needed; its sentence says what it does.", *reasons]
    params_file.write(settings, out, head="\n".join(head))
    lacking = missing_inputs(settings, Workspace().root)
    print(f"{out}: written from {origin}; {'before `dvc repro`:' if lacking else 'next: dvc repro'}")
    for problem in lacking:
        print(f"  {problem}")
    return settings


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _text(value: Any) -> str:
    """A mapping is too long for a line: the file has it."""
    return "see below" if isinstance(value, dict) and value else json.dumps(value)
