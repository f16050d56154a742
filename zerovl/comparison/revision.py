"""Read what DVC keeps of a git revision or an experiment: reports and parameters, without a checkout of it."""

from __future__ import annotations

from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.registry import release_files
from zerovl.workspace import Workspace


def fetch(name: str, root: Path, aside: Path) -> str:
    """Copy parameters and reports of a revision to the same places under `aside`; returns its commit.

    Files that DVC tracks come from its cache, else from the default remote.

    Raises:
        ZeroVLError: DVC is not installed, the folder is not a project of DVC and git, there is no such revision, or
            it has no evaluation that can be read.
    """
    try:
        from dvc.api import DVCFileSystem
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.scm import RevError, SCMError, resolve_rev
    except ImportError:
        raise ZeroVLError(
            f"{name}: no such folder, and revisions are read with DVC, which is not installed: pip install "
            "'zerovl[pipeline]'"
        ) from None
    try:
        with Repo(str(root)) as repo:
            commit = str(resolve_rev(repo.scm, name))
        files = DVCFileSystem(str(root), rev=commit)
        for path, wanted in _places(Workspace(), aside).items():
            if files.exists(path):
                wanted.parent.mkdir(parents=True, exist_ok=True)
                files.get(path, str(wanted))
    except (RevError, SCMError) as error:
        raise ZeroVLError(
            f"{name!r}: no such folder, release (NAME@NUMBER), git revision or experiment here ({error}); "
            "`zerovl registry list` and `dvc exp list --all` show what there is"
        ) from None
    except (DvcException, OSError) as error:
        raise ZeroVLError(
            f"{name}: its reports cannot be read: {error}; `dvc fetch --all-commits` may bring them"
        ) from None
    if not Workspace(aside).evaluation_metrics.is_file():
        raise ZeroVLError(
            f"{name}: revision {commit[:10]} has no reports/evaluation/metrics.json, in git or in DVC; compare one on "
            "which `dvc repro` ran to the end and was committed with dvc.lock"
        )
    return commit


def _places(there: Workspace, aside: Path) -> dict[str, Path]:
    """What is read of a revision, by its path in the project, and where it goes."""
    pairs = there.evaluation_report / release_files.SAMPLE / release_files.SAMPLE_PAIRS
    reports = (there.training_run, there.training_log, there.evaluation_metrics, there.evaluation_queries, pairs)
    return {path.as_posix(): aside / path for path in (there.root / "params.yaml", *reports)}
