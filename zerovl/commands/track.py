"""`zerovl track`: tell trackers what they do not know yet of the run whose model is in this checkout.

`zerovl evaluate` and `zerovl register` do the same at their end, for scores and release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerovl.commands import run_params
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file
from zerovl.log import logger
from zerovl.params import Params, as_dict
from zerovl.registry.release_files import WEIGHTS
from zerovl.registry.stores import store_uri
from zerovl.tracking.base import State
from zerovl.tracking.facts import Facts, read_facts
from zerovl.tracking.following import bring_up_to_date
from zerovl.tracking.trackers import asked_for
from zerovl.workspace import RUN_DESCRIPTION, Workspace

_PATIENCE_SECONDS = 3600.0  # for whoever asked for nothing else
_OF_TRAINING = "loss"  # among the evaluation's scores; its curve is there


def track(params: Params, workspace: Workspace) -> int:
    """Tell the trackers that `params` name everything of this checkout's run; returns 0 where they know it now.

    Raises `ZeroVLError` where no tracker is named, one is not installed, or the checkout has no run.
    """
    names = asked_for(params)
    if not names:
        raise ZeroVLError("no tracker: name one in machine.tracking, or set MLFLOW_TRACKING_URI")
    run = _run(workspace)
    if run is None:
        raise ZeroVLError(
            f"{workspace.training_run}: names no run in {workspace.runs}/, and a run is told from its log there; train "
            "first, or call this where it was trained"
        )
    if not bring_up_to_date(names, run, _facts(workspace, _known(params, workspace, run)), _PATIENCE_SECONDS):
        return 1
    print(f"{run}: {' and '.join(names)} {'knows' if len(names) == 1 else 'know'} all of it")
    return 0


def tell(params: Params, workspace: Workspace) -> None:
    """Tell trackers what a stage has found; whatever is missing or away is a warning, since the stage is done."""
    with _warning("not tracked: {}; then `zerovl track` tells what this stage found"):
        names = asked_for(params)
        run = _run(workspace)
        before = read_facts(run) if run else None
        if run and before and names:
            bring_up_to_date(names, run, _facts(workspace, before))


def tell_release(params: Params, run: Path, release: Mapping[str, str]) -> None:
    """Tell trackers of a release that was made of a run by `zerovl registry add`; does nothing where none knows it."""
    with _warning("the release is not tracked: {}; then `zerovl track` tells what else is known of the run"):
        before = read_facts(run)
        names = asked_for(params) if before else ()
        if before and names:
            bring_up_to_date(names, run, replace(before, notes={**before.notes, **release}))


@contextmanager
def _warning(text: str) -> Iterator[None]:
    """Make a warning of what goes wrong; {} in its text stands for that."""
    try:
        yield
    except (OSError, ZeroVLError) as error:
        logger().warning(text.format(error))


def release_notes(reference: str, store: str, alias: str) -> dict[str, str]:
    """Return what is told of a release: "zerovl@3", the address of its store, and the alias that it took."""
    place = store if "://" in store else str(Path(store).expanduser().resolve())
    return {"release": reference, "release_uri": f"{place.rstrip('/')}/{reference}", "release_alias": alias or "none"}


def _run(workspace: Workspace) -> Path | None:
    """The folder of the run that trained the model in this checkout, where it is on this machine."""
    if not workspace.training_run.is_file():
        return None
    folder = workspace.runs / str(read_json(workspace.training_run).get("fingerprint"))
    return folder if folder.is_dir() else None


def _known(params: Params, workspace: Workspace, run: Path) -> Facts:
    """What trackers were told of the run, or would have been told at its end where it was not tracked.

    Raises `ZeroVLError` where `params` are not the run's any more, and nothing has kept those.
    """
    if before := read_facts(run):
        return before
    own = read_json(run / RUN_DESCRIPTION)
    if differs := next(run_params.changed(own, as_dict(params)), ""):
        raise ZeroVLError(
            f"{run}: params.yaml is not the run's any more ({differs}), and a run that was not tracked is told with "
            "its parameters; set it back, then call this again"
        )
    parent = own.get("parent")
    origin = {"goes_on_from": f"{parent['run']}@{parent['step']}"} if parent else {}
    finished: State = "finished"
    steps = read_json(workspace.training_metrics)["steps"]
    return replace(Facts.of(params, steps, {"data": own["data"], **origin}), state=finished)


def _facts(workspace: Workspace, known: Facts) -> Facts:
    """What is known of the run now; of what is known of another model, nothing."""
    weights = workspace.model / WEIGHTS
    if not weights.is_file() or not workspace.evaluation_metrics.is_file():
        return known
    digest = sha256_file(weights)
    if read_json(workspace.evaluation_metrics).get("model_digest") != digest:
        return known
    scores = read_json(workspace.evaluation_scores) if workspace.evaluation_scores.is_file() else {}
    shown = {f"evaluation/{name}": value for name, value in scores.items() if name != _OF_TRAINING}
    release = read_json(workspace.release) if workspace.release.is_file() else {}
    return replace(known, scores=shown, notes={**known.notes, **_release_notes(release, digest, workspace)})


def _release_notes(release: Mapping[str, Any], digest: str, workspace: Workspace) -> dict[str, str]:
    """Number, address and alias of the release that this model is, empty where it is none."""
    if (release.get("files") or {}).get(WEIGHTS) != digest:
        return {}
    store = store_uri(release["store"], workspace.shared)
    holds = release["alias"] if release["promoted"] else ""
    return release_notes(f"{release['name']}@{release['version']}", store, holds)
