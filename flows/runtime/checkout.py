"""A run's own checkout: a git worktree on a branch of its own that shares history, DVC cache and run state.

So runs touch neither each other's files nor the user's, and what a run computed is commit + DVC cache.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.runtime.git import NETWORK_SECONDS, CheckoutError, git, identity
from flows.runtime.paths import Paths
from zerovl.data.raw.layout import is_remote
from zerovl.files import locked
from zerovl.kept_syntax import hand_on
from zerovl.params import DataParams
from zerovl.whole_folder import whole_folder

BRANCHES = "runs"
STARTS = "data/start"  # models that runs start from, by identity; DVC has them


@dataclass(frozen=True)
class Checkout:
    """A run's git worktree at `path`, on branch `runs/<name>`."""

    paths: Paths
    name: str
    path: Path

    @property
    def branch(self) -> str:
        """Return the branch that keeps what the run did."""
        return f"{BRANCHES}/{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """Return variables for commands here: the checkout's own code, this run's name in the registry's history."""
        places = [str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(places), "ZEROVL_RUN": f"run {self.name}"}

    def commit(self, message: str) -> bool:
        """Commit what a run writes into git's files: parameters and DVC's records. False where nothing changed."""
        git(self.path, "add", "--update")
        new = [path for path in ("dvc.lock", "data") if (self.path / path).exists()]
        git(self.path, "add", "--", *new)
        if not git(self.path, "status", "--porcelain", "--untracked-files=no"):
            return False
        git(self.path, "commit", "--quiet", "--no-verify", "-m", message, environment=_author(self.path))
        return True

    def push(self, remote: str) -> None:
        """Push the branch to a remote of the user's checkout."""
        target = f"HEAD:refs/heads/{self.branch}"
        git(self.path, "push", "--no-verify", "--force-with-lease", remote, target, seconds=NETWORK_SECONDS)

    def share_store(self, store: str) -> None:
        """Make a registry in a folder of the checkout that of the user's checkout, for all runs.

        Raises:
            CheckoutError: git has files in that folder, so the run has one of its own.
        """
        if "://" in store or Path(store).expanduser().is_absolute():
            return
        link = self.path / store
        if link.exists() and not link.is_symlink():
            raise CheckoutError(
                f"register.store: git has files in {store}, so releases of a run would go with its checkout; name "
                "another folder, or a whole path"
            )
        _link(self.paths.root / store, link)
        _exclude(self.path, store)

    def has_dvc_remote(self) -> bool:
        """Return whether DVC has a default remote here."""
        from dvc.repo import Repo

        with Repo(str(self.path)) as repo:
            return bool(repo.config["core"].get("remote"))

    def require_raw(self, data: DataParams) -> None:
        """Make sure that the run's raw data are here or DVC brings them; what lies elsewhere is not looked at.

        Raises:
            CheckoutError: they are in the user's checkout at most, and not in the run's.
        """
        named = {f"data.sources {source.name}": source.path for source in data.sources if not is_remote(source.path)}
        missing = {
            key: place
            for key, place in (named or {"data.raw": data.raw}).items()
            if (self.path / place).is_relative_to(self.path) and not (self.path / place).exists()
        }
        known = self._places_of_dvc() if missing else []
        for key, place in missing.items():
            path = self.path / place
            if not any(path.is_relative_to(out) or out.is_relative_to(path) for out in known):
                raise CheckoutError(
                    f"{key}: {place} is not in commit {self.head()[:12]}, and a run sees what git and DVC know alone; "
                    f"`dvc add {place}` and commit {place.rstrip('/')}.dvc, or name a folder by its whole path"
                )

    def _places_of_dvc(self) -> list[Path]:
        from dvc.repo import Repo

        with Repo(str(self.path)) as repo:
            return [Path(out.fs_path) for out in repo.index.outs]

    def start_file(self, init_from: str) -> str | None:
        """Return the `.dvc` file of the model that the run starts from; None where DVC does not have it.

        Raises:
            CheckoutError: the model is in the user's checkout at most, and not in the run's.
        """
        if not init_from:
            return None
        file = f"{Path(init_from)}.dvc"
        if (self.path / file).is_file():
            return file
        if not (self.path / init_from).is_dir():
            raise CheckoutError(
                f"train.init_from: {init_from} is not in commit {self.head()[:12]}; `dvc add {init_from}` and commit "
                f"{init_from}.dvc, or name a folder by its whole path"
            )
        return None

    def head(self) -> str:
        """Return the commit that is checked out."""
        return git(self.path, "rev-parse", "HEAD")

    @property
    def kept_reports(self) -> Path:
        """Return the folder of the run's reports that outlives the checkout."""
        return self.paths.reports / self.name

    def keep_reports(self) -> Path:
        """Copy the reports to where they outlive the checkout."""
        target = self.kept_reports
        with whole_folder(target) as aside:
            shutil.copytree(self.path / "reports", aside, dirs_exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
        return target

    def remove(self) -> None:
        """Remove the worktree; its branch, the cache and the reports that were kept stay."""
        # Else the next run would parse all modules again: a second of each.
        hand_on(self.path / "zerovl", self.paths.root / "zerovl")
        git(self.paths.root, "worktree", "remove", "--force", str(self.path))

    def discard(self) -> None:
        """Remove the worktree and the branch, which has nothing that anyone would look for."""
        self.remove()
        git(self.paths.root, "branch", "--quiet", "-D", self.branch)


def make(paths: Paths, name: str, run_id: str, revision: str) -> Checkout:
    """Return a checkout of `revision` for a run; the one that an earlier attempt of the same run left, if any.

    It is called as the run is, or with a piece of the run's id where an earlier run had the same name.

    Raises:
        CheckoutError: there is no such revision, or git cannot make a worktree.
    """
    paths.checkouts.mkdir(parents=True, exist_ok=True)
    with locked(paths.checkouts):  # git refuses a second process that changes its settings
        return _make(paths, name, run_id, revision)


def _make(paths: Paths, name: str, run_id: str, revision: str) -> Checkout:
    git(paths.root, "worktree", "prune")
    if git(paths.root, "branch", "--list", BRANCHES):
        raise CheckoutError(
            f"{paths.root}: a branch is called {BRANCHES!r}, and git allows no {BRANCHES}/<name of the run> beside it; "
            f"rename it: git branch -m {BRANCHES} another-name"
        )
    for candidate in (safe_name(name), f"{safe_name(name)}-{run_id[:8]}"):
        checkout = Checkout(paths, candidate, paths.checkouts / candidate)
        owner = _owner(paths, checkout.branch)
        if owner is None:
            commit = resolve(paths, revision)
            git(paths.root, "worktree", "add", "--quiet", "-b", checkout.branch, str(checkout.path), commit)
            git(paths.root, "config", _owner_key(checkout.branch), run_id)
            hand_on(paths.root / "zerovl", checkout.path / "zerovl")
        elif owner != run_id:
            continue
        elif not checkout.path.exists():
            git(paths.root, "worktree", "add", "--quiet", str(checkout.path), checkout.branch)
        _share(paths, checkout.path)
        return checkout
    raise CheckoutError(
        f"{paths.root}: other runs have the branches {BRANCHES}/{safe_name(name)}...; name the run otherwise"
    )


def _owner_key(branch: str) -> str:
    """git's own place for settings of a branch; they go with it."""
    return f"branch.{branch}.zerovl-run"


def _owner(paths: Paths, branch: str) -> str | None:
    """Return the id of the run that a branch belongs to, "" where nobody knows; None where there is no such branch."""
    if not git(paths.root, "branch", "--list", branch):
        return None
    return git(paths.root, "config", "--default", "", "--get", _owner_key(branch))


def fetch(paths: Paths) -> str:
    """Look for new commits at the remote; returns a warning where that failed, "" otherwise."""
    remote = remote_of(paths)
    try:
        if remote:
            git(paths.root, "fetch", "--quiet", remote, seconds=NETWORK_SECONDS)
    except CheckoutError as error:
        return f"{error}; going on with the commits that are here"
    return ""


def resolve(paths: Paths, revision: str) -> str:
    """Return the commit of a branch, tag or hash; of a branch that the remote has gone on with, the remote's."""
    local = _commit(paths, revision)
    remote = _commit(paths, f"{remote_of(paths)}/{revision}")
    if local and remote and git(paths.root, "branch", "--list", revision):
        return remote if git(paths.root, "merge-base", local, remote) == local else local
    if found := local or remote:
        return found
    raise CheckoutError(f"{paths.root}: git knows no revision {revision!r}; name a branch, a tag or a hash")


def _commit(paths: Paths, revision: str) -> str | None:
    with suppress(CheckoutError):
        return git(paths.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return None


def remote_of(paths: Paths) -> str | None:
    """Return the remote for branches and tags of runs: origin, or the only other one; None without a remote."""
    remotes = git(paths.root, "remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), None)


def safe_name(name: str) -> str:
    """Return a run's name as folder and branch; Prefect's own names ("tacky-heron") are left as they are."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"


def _author(folder: Path) -> dict[str, str]:
    name, address = identity(folder)
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }


def _share(paths: Paths, path: Path) -> None:
    """Give the checkout cache, remotes, run state and indexes of tars of the user's checkout."""
    from dvc.repo import Repo

    local = paths.root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copyfile(local, path / ".dvc" / "config.local")
    with Repo(str(paths.root)) as repo, Repo(str(path)) as own:
        # A remote in a folder is named relative to the checkout, or was when it was configured.
        folders = {
            name: url for name in repo.config["remote"] if "://" not in (url := repo.config["remote"][name]["url"])
        }
        with own.config.edit("local") as config:
            config["cache"]["dir"] = repo.cache.local_cache_dir
            # Many checkouts of the same shards: links where the file system has them.
            config["cache"].setdefault("type", ["reflink", "hardlink", "copy"])
            for name, url in folders.items():
                config["remote"].setdefault(name, {})["url"] = url
    _link(paths.runs, path / "runs")
    _link(paths.tar_indexes, path / "data" / ".tars")
    _exclude(path, "data/.tars")


def _exclude(folder: Path, path: str) -> None:
    """Keep git from taking a link for a change: a pattern for folders, as users write them, does not match one."""
    if not git(folder, "status", "--porcelain", "--", path):
        return
    file = Path(git(folder, "rev-parse", "--path-format=absolute", "--git-common-dir")) / "info" / "exclude"
    known = file.read_text(encoding="utf-8") if file.is_file() else ""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{known.rstrip()}\n/{Path(path).as_posix()}\n".lstrip(), encoding="utf-8")


def _link(target: Path, link: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target, target_is_directory=True)
