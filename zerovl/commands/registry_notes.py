"""`zerovl registry describe | tag | untag`: what people say of a version; each is a note, and none is ever changed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict

from zerovl.registry import notes, retention
from zerovl.registry.records import Version, check_tag
from zerovl.registry.registry import Registry
from zerovl.release import provenance
from zerovl.text_format import answer

Action = Callable[[Registry, str, argparse.Namespace], None]


def _describe(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version = registry.resolve(reference)
    _add(registry, version, "describe", arguments.text, arguments)


def _tag(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version, tag = registry.resolve(reference), check_tag(arguments.tag)
    notes.require_in_use(version, registry.notes_on(version))
    _add(registry, version, "tag", tag, arguments)
    retention.keep_in_use(registry, version, f"the tag {tag}", provenance.who_and_where())


def _untag(registry: Registry, reference: str, arguments: argparse.Namespace) -> None:
    version, tag = registry.resolve(reference), check_tag(arguments.tag)
    _add(registry, version, "untag", tag, arguments)


def _add(registry: Registry, version: Version, action: str, text: str, arguments: argparse.Namespace) -> None:
    """Add a note, unless it would say what holds already."""
    before = notes.state(registry.notes_on(version))
    added = {"describe": text != before.description, "tag": text not in before.tags, "untag": text in before.tags}
    if not added[action]:
        print(answer(arguments.json, {"added": False}, f"{version.reference}: nothing to change; {_told(before)}"))
        return
    note = notes.add(registry.store, version, action, provenance.who_and_where(), text)
    after = notes.state(registry.notes_on(version))
    print(answer(arguments.json, {"added": True, **asdict(note)}, f"{version.reference}: {_told(after)}"))


def _told(state: notes.State) -> str:
    return f"tags: {', '.join(state.tags) or 'none'}; description: {state.description or 'none'}"


ACTIONS: dict[str, Action] = {"describe": _describe, "tag": _tag, "untag": _untag}
