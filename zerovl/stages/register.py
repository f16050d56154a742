"""Run the stage `register`: publish the model with its reports, pass it through the gate, move the alias."""

from __future__ import annotations

from zerovl.evaluation.metrics import headline_block
from zerovl.files import write_json
from zerovl.params import Params, RegisterParams
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store, store_uri
from zerovl.release.gate import Verdict
from zerovl.release.holder import Holders
from zerovl.release.publish import assemble, publish_and_judge, usage_lines
from zerovl.text_format import file_size, plural
from zerovl.workspace import Workspace


def run(params: Params, workspace: Workspace = Workspace()) -> None:  # noqa: B008 (frozen)
    """Publish `model/` with its reports, judge it, move the alias if it passed, write `reports/release.json`.

    A candidate that the gate refuses is a version all the same: the alias stays, the reasons are printed.

    Raises:
        ZeroVLError: a report is missing or of other data, the model is not a bundle, or the store cannot be used.
    """
    section = params.register_
    registry = Registry(open_store(store_uri(section.store, workspace.root)))
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
            "metrics": headline_block(candidate.metrics)[1],
            "files": {name: info.sha256 for name, info in version.files.items()},
        },
    )
    _tell(version, verdict, move, section)


def _tell(version: Version, verdict: Verdict, move: Move | None, section: RegisterParams) -> None:
    contents = f"{plural(len(version.files), 'file')}, {file_size(version.size)}"
    print(f"registered {version.reference} in {section.store} ({contents})")
    if move:
        print(f"gate passed; {version.name}@{section.alias} is version {version.number} (move {move.number})")
        if move.check:
            print(f"  {move.check}")
    elif not verdict.passed:
        print(f"gate FAILED; {version.name}@{section.alias or 'VERSION'} stays as it is:")
    if verdict.holder:
        print(f"  {verdict.holder.alias} was {verdict.holder}")
    for reason in verdict.reasons:
        if not reason.passed or reason.note or reason.low is not None:
            print(f"  {reason}")
    label = section.alias if move else str(version.number)
    print("load it with:\n" + "\n".join(f"    {line}" for line in usage_lines(section, label).splitlines()))
