"""Turn the names of classes into captions, by templates with a place for the name.

`openai-imagenet-80` and `openai-imagenet-7` are the prompts that OpenAI published for ImageNet with CLIP, all 80 and
the seven that they found to be enough (notebooks/Prompt_Engineering_for_ImageNet.ipynb of the repository openai/CLIP).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

PLACES = ("{}", "{c}")  # ours; CLIP_benchmark's
DEFAULT = "photo"  # of a set that comes without templates
_SHORT = {"name": ("{}",), "photo": ("a photo of a {}.",)}


def templates_of(given: str | Sequence[str], of_set: Sequence[str]) -> tuple[str, ...]:
    """Return the templates that a setting stands for; `auto` are the set's own, where it has some, else `photo`.

    `given` is one of `params.TEMPLATE_SETS`, or the templates themselves.
    """
    if not isinstance(given, str):
        return tuple(given)
    if given == "auto":
        return tuple(of_set) or _SHORT[DEFAULT]
    if given in _SHORT:
        return _SHORT[given]
    text = files("zerovl.evaluation.classification").joinpath(f"{given}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def fill(template: str, name: str) -> str:
    """Put the name of a class into a template; braces in the name stay what they are."""
    before, place, after = min((template.partition(place) for place in PLACES), key=lambda parts: len(parts[0]))
    return f"{before}{name}{fill(after, name)}" if place else template


def place_error(template: str) -> str | None:
    """Return why a text is not a template; None if it is one."""
    if any(place in template for place in PLACES):
        return None
    return f"template {template!r} has no place for the class; write {{}} where its name goes"
