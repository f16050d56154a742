"""What `zerovl doctor` looks at because the parameters name it: sources, towers, the gate, stores, copies, caches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zerovl.commands.finding import Finding, first_line
from zerovl.errors import ZeroVLError
from zerovl.shared_folder import denied
from zerovl.workspace import Workspace


def check_params(path: Path) -> Iterator[Finding]:
    """Read the parameters and check every key."""
    try:
        from zerovl import params_file
    except ImportError as error:
        yield Finding("FAIL", "packages", f"cannot be imported ({first_line(error)}); run `make setup`")
        return
    try:
        params_file.load(path)
    except ZeroVLError as error:
        yield Finding("FAIL", "params", str(error))
        return
    yield Finding("ok", "params", f"{path} is valid")


def check_inputs(params_path: Path, workspace: Workspace) -> Iterator[Finding]:
    """Look whether the sources and the towers that the parameters name are there; nothing to say where they are."""
    from zerovl import params_file
    from zerovl.commands.missing_inputs import missing_inputs

    for problem in missing_inputs(params_file.load(params_path), workspace.root):
        yield Finding("FAIL", "inputs", problem)


def check_gate(params_path: Path, workspace: Workspace) -> Iterator[Finding]:
    """Look whether the data have the sources that the gate names; nothing to say before there is a manifest."""
    if not workspace.manifest_file.is_file():
        return
    from zerovl import params_file
    from zerovl.data.manifest import Manifest
    from zerovl.evaluation.gate_sources import gate_problem

    problem = gate_problem(params_file.load(params_path).register_.gate, Manifest.load(workspace.manifest))
    yield Finding("FAIL" if problem else "ok", "gate", problem or "names sources that the data have")


def store_of(params_path: Path) -> str:
    """Return the store that `zerovl register` uses, where the parameters say it; else that of `zerovl.load`."""
    from zerovl import params_file
    from zerovl.registry import fetch

    try:
        return params_file.load(params_path).register_.store
    except ZeroVLError:
        return fetch.default_store()  # another check has said what is wrong with them


def check_store(uri: str) -> Iterator[Finding]:
    """Write a probe to the store, try to write it again, and remove it."""
    from zerovl.registry.stores import open_store

    try:
        store = open_store(uri)
        if "://" not in uri and not Path(uri).expanduser().exists():
            yield Finding("note", "store", f"{store.describe()} is not there yet; `zerovl register` makes it")
            return
        text = f"{store.describe()} {store.check()}"
    except PermissionError as error:
        yield Finding("FAIL", "store", f"{uri}: you may not look into it: {denied(error, Path(uri))}")
        return
    except ZeroVLError as error:
        yield Finding("FAIL", "store", str(error))
        return
    yield Finding("note" if "ignored" in text else "ok", "store", text)


def check_copies(params_path: Path) -> Iterator[Finding]:
    """Write a probe where checkpoints are copied to, and remove it; nothing to say where they are not."""
    from zerovl import params_file, s3, s3_files

    place = params_file.load(params_path).machine.checkpoint_copy
    if not place:
        return
    try:
        problem = s3_files.try_writing(place, s3.HURRIED)
    except ZeroVLError as error:
        yield Finding("FAIL", "copies", str(error))
        return
    if problem:
        yield Finding("note", "copies", f"{place} can be written; old copies of checkpoints will stay there: {problem}")
        return
    yield Finding("ok", "copies", f"{place} can be written and cleared: checkpoints are copied there")


def check_shard_cache(params_path: Path) -> Iterator[Finding]:
    """Look at the node's cache of shards; nothing to say where nothing is read through it."""
    from zerovl import params_file
    from zerovl.commands import node_cache

    yield from (Finding(level, "shards", text) for level, text in node_cache.findings(params_file.load(params_path)))
