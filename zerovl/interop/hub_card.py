"""`README.md` of an exported folder: the card that a hub shows, with its metadata in the head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from zerovl.errors import ZeroVLError

FILE = "README.md"
TAG = "zerovl"
_TAGS = ["clip", "dual-encoder", "image-text-retrieval", TAG]
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")

_CARD = """\
---
{head}---

# {name}

The model {name} of ZeroVL as {library} reads it.

```python
{usage}
```

Pictures go through the preprocessing of this folder, which is what the model was evaluated with.

{checked}

## Scores

{scores}
"""


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model beside its files."""

    name: str
    licence: str = ""  # as the hub names it: apache-2.0, cc-by-nc-4.0, other; "" where nobody said
    task: str | None = None  # the hub's, where it was measured
    results: list[dict[str, Any]] = field(default_factory=list)  # of `model-index`
    scores: str = ""  # the same as Markdown


def check_licence(licence: str) -> None:
    """Raise `ZeroVLError` for what no hub takes as the name of a licence."""
    if not _LICENCE.fullmatch(licence):
        raise ZeroVLError(f"--license {licence}: give its short name in small letters, as apache-2.0, mit or other")


def render(facts: CardFacts, library: str, usage: str, checked: str) -> str:
    """Return the card as Markdown."""
    text = f"{facts.scores}\n\nIntervals, data and limits: `MODEL_CARD.md`." if facts.results else "None come with it."
    values = {"name": facts.name, "library": library, "usage": usage, "checked": checked, "scores": text}
    return _CARD.format(head=yaml.safe_dump(dict(_head(facts, library)), sort_keys=False, allow_unicode=True), **values)


def _head(facts: CardFacts, library: str) -> Mapping[str, Any]:
    head: dict[str, Any] = {"library_name": library}
    if facts.licence:
        head["license"] = facts.licence
    if facts.task:
        head["pipeline_tag"] = facts.task
    head["tags"] = list(_TAGS)
    if facts.results:
        head["model-index"] = [{"name": facts.name, "results": facts.results}]
    return head
