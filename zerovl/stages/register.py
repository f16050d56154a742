"""Run the stage `register`: publish the model with its reports, pass it through the gate, move the alias."""

from __future__ import annotations

from zerovl.evaluation.metrics import headline_block
from zerovl.files import read_json, write_json
from zerovl.params import Params
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store, store_uri
from zerovl.release import outcome
from zerovl.release.gate import Comparison, LostHolder
from zerovl.release.provenance import report
from zerovl.release.publish import assemble, publish_and_judge
from zerovl.release.record import NotAsked, not_asked
from zerovl.workspace import Workspace


def run(params: Params, workspace: Workspace = Workspace()) -> None:  # noqa: B008 (frozen)
    """Publish `model/` with its reports, judge it, move the alias if it passed, write `reports/release.json`.

    A candidate that the gate refuses is a version all the same: the alias stays, the reasons are printed. Where
    `register.when` asks for no release, the file says so and how to ask.

    Raises:
        ZeroVLError: a report is missing or of other data, the model is not a bundle, or the store cannot be used.
    """
    section = params.register_
    if unasked := not_asked(section):
        _leave_out(unasked, params, workspace)
        return
    registry = Registry(open_store(store_uri(section.store, workspace.shared)))
    before = outcome.known_before(registry, section)
    candidate = assemble(params, workspace)

    def compare(registry: Registry, holder: Version) -> Comparison | LostHolder:
        from zerovl.release.holder import Holders  # torch: a store that cannot be used is told before

        return Holders.of(params, workspace)(registry, holder)

    registered = publish_and_judge(registry, candidate, section, compare)
    version = registered.version
    write_json(
        workspace.release,
        {
            "name": version.name,
            "version": version.number,
            "store": section.store,
            "alias": section.alias,
            "promoted": registered.move is not None,
            "moved_away": str(registered.moved_away or ""),
            "verdict": registered.verdict.to_json(),
            "metrics": headline_block(candidate.metrics)[1],
            "files": {name: info.sha256 for name, info in version.files.items()},
        },
    )
    if unscored := read_json(workspace.validation_verdict).get("sources_without", {}).get("valid"):
        print(f"without a valid split, so no rule of the gate looked at them: {', '.join(unscored)}")
    outcome.tell(registered, section, before)


def _leave_out(unasked: NotAsked, params: Params, workspace: Workspace) -> None:
    digest = report(workspace.evaluation_metrics).get("model_digest")
    write_json(workspace.release, unasked.to_json(params.register_, digest))
    print(f"nothing is registered: {unasked.why}; register it with:\n    {unasked.command}")
