"""What `params.yaml` names and is not on this machine: told before `prepare` or `train` fails for it."""

from __future__ import annotations

from pathlib import Path

from zerovl.data.raw.sources import resolve
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, Params

_TOWERS = "towers"  # which `make towers` fills


def missing_inputs(params: Params, root: Path) -> list[str]:
    """Return a sentence with the fix for each source and each file of weights that is not there.

    The demo's sources are drawn by its first stage. What lies on s3:// is not looked up, nor are weights by a name
    of the hub.
    """
    return [*_sources(params.data, root), *_towers(params, root)]


def _sources(data: DataParams, root: Path) -> list[str]:
    if not data.sources and data.raw == DataParams().raw:
        return []
    each = [data.model_copy(update={"sources": [source]}) for source in data.sources] or [data]
    problems = []
    for one in each:
        try:
            resolve(one, root)
        except ZeroVLError as error:
            problems.append(str(error))
    return problems


def _towers(params: Params, root: Path) -> list[str]:
    image, text = params.model.image_tower.weights, params.model.text_tower.name
    named = {"model.image_tower.weights": image}
    if text.startswith((f"{_TOWERS}/", "./", "../", "/")):  # else it may be a name of the hub
        named["model.text_tower.name"] = text
    return [
        f"{key}: {name}: not there; {_fix(name)}" for key, name in named.items() if name and not (root / name).exists()
    ]


def _fix(name: str) -> str:
    return "run `make towers`" if name.startswith(f"{_TOWERS}/") else "put it there, or correct the path"
