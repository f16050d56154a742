"""Read what DVC keeps of a git revision or an experiment: files of it, without a checkout."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zerovl import s3
from zerovl.errors import ZeroVLError
from zerovl.registry import release_files
from zerovl.release.provenance import report
from zerovl.workspace import Workspace


class NoRevisionError(ZeroVLError):
    """Neither git nor DVC know a revision or an experiment of that name."""


@contextmanager
def said_of(name: str, aside: Path) -> Iterator[None]:
    """Have errors about files below `aside`, where they were put for a while, name them as what was named has them."""
    try:
        yield
    except ZeroVLError as error:
        if f"{aside}{os.sep}" not in str(error):
            raise
        raise ZeroVLError(f"{name}: {str(error).replace(f'{aside}{os.sep}', '')}") from None


def fetch(name: str, root: Path, aside: Path) -> str:
    """Copy parameters and reports of a revision to the same places under `aside`; returns its commit.

    Raises:
        ZeroVLError: as `copy_files`, or the revision has no evaluation that can be read.
    """
    commit = copy_files(name, root, aside, _compared())
    if not Workspace(aside).evaluation_metrics.is_file():
        raise ZeroVLError(
            f"{name}: revision {commit[:10]} has no reports/evaluation/metrics.json, in git or in DVC; name one on "
            "which `dvc repro` ran to the end and was committed with dvc.lock"
        )
    return commit


def copy_files(name: str, root: Path, aside: Path, paths: Iterable[Path]) -> str:
    """Copy files and folders of a revision to the same places under `aside`, those that it has; returns its commit.

    What DVC tracks comes from its cache, else from the default remote.

    Args:
        name: a branch, tag or commit of git, or an experiment of DVC.
        root: a checkout of the project.
        aside: an empty folder.
        paths: relative to the project's folder.

    Raises:
        NoRevisionError: there is no such revision.
        ZeroVLError: DVC is not installed, the folder is not a project of DVC and git, or the files cannot be read.
    """
    _require_dvc(name)
    os.environ.update(s3.checksum_variables())  # DVC's remote may be on S3
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError, SCMError, resolve_rev

    try:
        with Repo(str(root)) as repo:
            commit = str(resolve_rev(repo.scm, name))
        files = DVCFileSystem(str(root), rev=commit)
        for path in paths:
            if files.exists(path.as_posix()):
                wanted = aside / path
                wanted.parent.mkdir(parents=True, exist_ok=True)
                files.get(path.as_posix(), str(wanted), recursive=files.isdir(path.as_posix()))
    except (RevError, SCMError) as error:
        raise NoRevisionError(
            f"{name!r}: no such folder, release (NAME@NUMBER), git revision or experiment here ({error}); "
            "`zerovl registry list` and `dvc exp list --all` show what there is"
        ) from None
    except (DvcException, OSError) as error:
        raise ZeroVLError(
            f"{name}: its reports cannot be read: {error}; `dvc fetch --all-commits` may bring them"
        ) from None
    return commit


def experiments(root: Path) -> dict[str, str]:
    """Return the commit of each experiment of DVC by its name, those on other commits too.

    Raises:
        ZeroVLError: DVC is not installed, or the folder is not a project of DVC and git.
    """
    _require_dvc(str(root))
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo:
            found = repo.experiments.ls(all_commits=True)
    except (DvcException, SCMError) as error:
        raise ZeroVLError(f"{root}: the experiments of DVC cannot be listed: {error}") from None
    return {name: str(commit) for its in found.values() for name, commit in its}


def experiment_of_run(fingerprint: str, root: Path) -> str | None:
    """Return the name of the experiment whose model a run trained; None where there is none.

    Raises:
        ZeroVLError: as `experiments`.
    """
    path = Workspace().training_run
    for name in experiments(root):
        with tempfile.TemporaryDirectory() as folder:
            copy_files(name, root, Path(folder), [path])
            if report(Path(folder) / path).get("fingerprint") == fingerprint:
                return name
    return None


def _require_dvc(name: str) -> None:
    try:
        import dvc  # noqa: F401
    except ImportError:
        raise ZeroVLError(
            f"{name}: no such folder, and revisions are read with DVC, which is not installed: pip install "
            "'zerovl[pipeline]'"
        ) from None


def _compared() -> tuple[Path, ...]:
    """What is read of a revision to compare it."""
    there = Workspace()
    pairs = there.evaluation_report / release_files.SAMPLE / release_files.SAMPLE_PAIRS
    of_training = (there.training_run, there.training_log)
    by_item = (there.evaluation_queries, there.evaluation_items, there.evaluation_details)
    return (there.root / "params.yaml", *of_training, there.evaluation_metrics, *by_item, pairs)
