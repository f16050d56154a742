"""`zerovl registry add`: publish a model that nobody asked to register when it was made.

    runs/3f2a90c14be7d105                   the run whose model is in this checkout, or that of an experiment
    higher-lr, a-branch, HEAD~1             what DVC has of an experiment or a git revision

It goes through the same gate as in the stage `register`, and what was registered before keeps its version.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zerovl import params_file
from zerovl.commands import run_params, track
from zerovl.comparison import revision
from zerovl.errors import ZeroVLError
from zerovl.params import Params, as_dict
from zerovl.registry import fetch
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.release_files import WEIGHTS
from zerovl.registry.stores import open_store
from zerovl.release import outcome
from zerovl.release.gate import Comparison, LostHolder
from zerovl.release.holder import Holders
from zerovl.release.named_drops import Measured
from zerovl.release.provenance import Source, report
from zerovl.release.publish import assemble, publish_and_judge
from zerovl.workspace import RUN_DESCRIPTION, Workspace

NAMES = "a run's folder (runs/FINGERPRINT), an experiment of DVC (`dvc exp list`), or a revision of git"


@dataclass(frozen=True)
class _Found:
    """A model with its reports: what it was made with, from what, and how its rival is scored."""

    params: Params
    workspace: Workspace
    source: Source
    holders: Holders


@dataclass(frozen=True)
class _HoldersBesideRevision(Holders):
    """Compares holders with a candidate whose shards are not there before a holder has to be scored again."""

    revision: str
    here: Workspace

    @property
    def project(self) -> Path:
        """The checkout: DVC keeps no tars in place of a revision."""
        return self.here.root

    def _score_again(self, registry: Registry, holder: Version, ours: Measured, why: str) -> Comparison | LostHolder:
        if not self.machine.shards:
            revision.copy_files(self.revision, self.here.root, self.workspace.root, [Workspace().shards])
        return super()._score_again(registry, holder, ours, why)


def add(reference: str, store: str | None, here: Workspace, as_json: bool) -> None:
    """Register what a reference names, judge it, move its alias if it passed, and say so.

    Name, alias and gate are those of its own params.yaml.

    Args:
        reference: a run's folder, a revision of git, or an experiment of DVC.
        store: a folder or s3://bucket/prefix; None: as for the other actions, from the checkout.
        here: the checkout, which has the history.
        as_json: how what became of it is printed.

    Raises:
        ZeroVLError: there is nothing of that name, its model was not evaluated to the end, or the store cannot be used.
    """
    if not reference.strip():
        raise ZeroVLError(f"{reference!r}: names nothing; give {NAMES}")
    store = store or fetch.default_store()
    registry = Registry(open_store(store))
    with tempfile.TemporaryDirectory() as aside, revision.said_of(reference, Path(aside)):
        found = _find(reference, here, Path(aside))
        section = found.params.register_.model_copy(update={"store": store})
        candidate = assemble(found.params, found.workspace, found.source)
        before = outcome.known_before(registry, section)
        tell = outcome.tell_json if as_json else outcome.tell
        registered = publish_and_judge(registry, candidate, section, found.holders)
        tell(registered, section, before)
        run = here.runs / str(report(found.workspace.training_run).get("fingerprint"))
        notes = track.release_notes(registered.version.reference, store, section.alias if registered.move else "")
        track.tell_release(found.params, run, notes)


def _find(reference: str, here: Workspace, aside: Path) -> _Found:
    run = Path(reference)
    if not (run / RUN_DESCRIPTION).is_file():
        try:
            return _of_revision(reference, here, aside)
        except revision.NoRevisionError:
            why = f" (it has no {RUN_DESCRIPTION}, so it is not a run)" if run.is_dir() else ""
            raise ZeroVLError(f"{reference!r}: nothing to register by this name{why}; give {NAMES}") from None
    fingerprint = run.absolute().name
    changed = ""
    if report(here.training_run).get("fingerprint") == fingerprint:
        params = params_file.load(here.root / "params.yaml")
        changed = next(run_params.changed(report(run / RUN_DESCRIPTION), as_dict(params)), "")
        if not changed:
            return _Found(params, here, Source.of_checkout(here.root, as_dict(params)), Holders.of(params, here))
    if name := revision.experiment_of_run(fingerprint, here.root):
        return _of_revision(name, here, aside)
    if changed:
        raise ZeroVLError(
            f"{reference}: its model is in this checkout, but params.yaml is not the run's any more ({changed}), and "
            "it goes with the release; set it back, or name the git revision that has both"
        )
    raise ZeroVLError(
        f"{reference}: the model of this run is neither in this checkout nor in an experiment; name the git revision "
        "that has it, or train it to the end: `dvc repro` with its parameters resumes it"
    )


def _of_revision(name: str, here: Workspace, aside: Path) -> _Found:
    there, all_ = Workspace(aside), Workspace()
    reports = (all_.validation_verdict, all_.training_report, all_.evaluation_report)
    wanted = (Path("params.yaml"), Path("dvc.lock"), all_.model, all_.manifest, *reports)
    commit = revision.copy_files(name, here.root, aside, wanted)
    needed = (all_.manifest_file, all_.validation_verdict, all_.model / WEIGHTS, all_.evaluation_metrics)
    if missing := [str(path) for path in (Path("params.yaml"), *needed) if not (aside / path).is_file()]:
        raise ZeroVLError(
            f"{name}: revision {commit[:10]} has no {', no '.join(missing)}, in git or in DVC, so there is nothing to "
            "register; name one on which `dvc repro` or `dvc exp run` ran up to evaluate"
        )
    params = params_file.load(aside / "params.yaml")
    experiment = name if revision.experiments(here.root).get(name) == commit else ""
    source = Source({"commit": commit, "dirty": False}, experiment)
    names = tuple(params.register_.gate.max_drops)
    holders = _HoldersBesideRevision(params.evaluate, there, params.machine, names, name, here)
    return _Found(params, there, source, holders)
