"""The stage `register`: publishes the model with its reports, passes it through the gate, moves the alias."""

from __future__ import annotations

from pathlib import Path

from zerovl.files import write_json
from zerovl.params import Params, RegisterParams
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.release.gate import Verdict
from zerovl.release.holder import Holders
from zerovl.release.publish import assemble, publish_and_judge, usage_lines
from zerovl.workspace import Workspace


def run(params: Params, workspace: Workspace = Workspace()) -> None:  # noqa: B008 (frozen)
    """Publish `model/` with its reports, judge it, move the alias if it passed, write `reports/release.json`.

    A candidate that the gate refuses is a version all the same: the alias stays, the reasons are printed.

    Raises:
        ZeroVLError: a report is missing or of other data, the model is no bundle, or the store cannot be used.
    """
    section = params.register_
    registry = Registry(open_store(_store_uri(section.store, workspace)))
    candidate = assemble(params, workspace)
    version, verdict, move = publish_and_judge(registry, candidate, section, Holders(params.evaluate, workspace))
    write_json(
        workspace.release,
        {
            "name": version.name,
            "version": version.number,
            "store": section.store,
            "alias": section.alias,
            "promoted": move is not None,
            "verdict": verdict.to_json(),
            "metrics": candidate.metrics["overall"],
            "files": {name: info.sha256 for name, info in version.files.items()},
        },
    )
    _tell(version, verdict, move, section)


def _store_uri(store: str, workspace: Workspace) -> str:
    """A relative folder is meant from the workspace's root."""
    return store if "://" in store else str(workspace.root / Path(store).expanduser())


def _tell(version: Version, verdict: Verdict, move: Move | None, section: RegisterParams) -> None:
    print(
        f"registered {version.reference} in {section.store} ({len(version.files)} files, {version.size / 1e6:.1f} MB)"
    )
    if move:
        print(f"gate passed; {version.name}@{section.alias} is version {version.number} (move {move.number})")
        if move.check:
            print(f"  {move.check}")
    elif not verdict.passed:
        print(f"gate FAILED; {version.name}@{section.alias or 'VERSION'} stays as it is:")
    for reason in verdict.reasons:
        if not reason.passed or reason.note or reason.low is not None:
            print(f"  {reason}")
    label = section.alias if move else str(version.number)
    print("load it with:\n" + "\n".join(f"    {line}" for line in usage_lines(section, label).splitlines()))
