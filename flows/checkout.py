"""A run's own checkout: a git worktree on a branch of its own that shares history, DVC cache and run state.

So runs touch neither each other's files nor the user's, and what a run computed is commit + DVC cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.home import Home

BRANCHES = "runs"
_NOBODY = ("zerovl flows", "flows@localhost")


class CheckoutError(Exception):
    """git refused; the text says what and why."""


@dataclass(frozen=True)
class Checkout:
    """`path` is the worktree, on branch `runs/<name>`."""

    home: Home
    name: str
    path: Path

    @property
    def branch(self) -> str:
        return f"{BRANCHES}/{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """For commands in the checkout: its own code first, and this run's name in the registry's history."""
        paths = [str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths), "ZEROVL_RUN": f"run {self.name}"}

    def commit(self, message: str) -> bool:
        """Commit what a run writes into git's files: parameters and DVC's records. False where nothing changed."""
        paths = [path for path in ("params.yaml", "dvc.lock", "data") if (self.path / path).exists()]
        git(self.path, "add", "--", *paths)
        if not git(self.path, "status", "--porcelain", "--untracked-files=no"):
            return False
        git(self.path, "commit", "--quiet", "--no-verify", "-m", message, environment=_author(self.path))
        return True

    def push(self) -> str | None:
        """Push the branch to the remote of the user's checkout; None where it has none."""
        remote = remote_of(self.home)
        if remote is None:
            return None
        git(self.path, "push", "--no-verify", "--force-with-lease", remote, f"HEAD:refs/heads/{self.branch}")
        return remote

    def share_store(self, store: str) -> None:
        """A registry in a folder of the checkout is that of the user's checkout, for all runs."""
        if "://" not in store and not Path(store).expanduser().is_absolute():
            _link(self.home.root / store, self.path / store)

    def head(self) -> str:
        return git(self.path, "rev-parse", "HEAD")

    def keep_reports(self) -> Path:
        """Copy the reports to where they outlive the checkout."""
        target = self.home.reports / self.name
        aside = target.with_name(f".{target.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(self.path / "reports", aside, dirs_exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(aside, target)
        return target

    def remove(self) -> None:
        """Remove the worktree; its branch, the cache and the reports that were kept stay."""
        git(self.home.root, "worktree", "remove", "--force", str(self.path))


def make(home: Home, name: str, run_id: str, revision: str) -> Checkout:
    """A checkout of `revision` for a run; the one that an earlier attempt of the same run left, if any.

    It is called as the run is, or with a piece of the run's id where an earlier run had the same name.

    Raises:
        CheckoutError: there is no such revision, or git cannot make a worktree.
    """
    for candidate in (safe_name(name), f"{safe_name(name)}-{run_id[:8]}"):
        checkout = Checkout(home, candidate, home.checkouts / candidate)
        if (checkout.path / ".git").exists():
            if _mark(checkout.path).read_text() == run_id:
                return checkout
        elif not git(home.root, "branch", "--list", checkout.branch):
            break
    commit = resolve(home, revision)
    home.checkouts.mkdir(parents=True, exist_ok=True)
    git(home.root, "worktree", "prune")
    git(home.root, "worktree", "add", "--quiet", "-b", checkout.branch, str(checkout.path), commit)
    _share(home, checkout.path)
    _mark(checkout.path).write_text(run_id)
    return checkout


def _mark(path: Path) -> Path:
    """Whose checkout it is; written last, in git's own folder for the worktree."""
    return Path(git(path, "rev-parse", "--absolute-git-dir")) / "zerovl-run"


def resolve(home: Home, revision: str) -> str:
    """The commit of a branch, tag or hash."""
    try:
        return git(home.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except CheckoutError:
        raise CheckoutError(
            f"{home.root}: git knows no revision {revision!r}; name a branch, a tag or a hash"
        ) from None


def remote_of(home: Home) -> str | None:
    """Where branches and tags of runs are pushed: origin, or the only other one; None without a remote."""
    remotes = git(home.root, "remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), None)


def safe_name(name: str) -> str:
    """A run's name as folder and branch; Prefect's own names ("tacky-heron") are left as they are."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"


def git(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Output of a git command, without the user's hooks: one by DVC would check data out."""
    command = ["git", "-c", "core.hooksPath=/dev/null", *words]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckoutError(f"{folder}: `git {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def identity(folder: Path) -> tuple[str, str]:
    """Name and address for commits and tags, which a service's account may not have set."""

    def setting(key: str, variable: str, fallback: str) -> str:
        done = subprocess.run(["git", "config", key], cwd=folder, capture_output=True, text=True, check=False)
        return os.environ.get(variable) or done.stdout.strip() or fallback

    name = setting("user.name", "GIT_AUTHOR_NAME", _NOBODY[0])
    return name, setting("user.email", "GIT_AUTHOR_EMAIL", _NOBODY[1])


def _author(folder: Path) -> dict[str, str]:
    name, address = identity(folder)
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }


def _share(home: Home, path: Path) -> None:
    """One cache, one run state and one local registry for all checkouts of this machine."""
    from dvc.repo import Repo

    local = home.root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copyfile(local, path / ".dvc" / "config.local")
    with Repo(str(home.root)) as repo, Repo(str(path)) as own:
        # A remote in a folder is named relative to the checkout, or was when it was configured.
        folders = {
            name: url for name in repo.config["remote"] if "://" not in (url := repo.config["remote"][name]["url"])
        }
        with own.config.edit("local") as config:
            config["cache"]["dir"] = repo.cache.local_cache_dir
            for name, url in folders.items():
                config["remote"].setdefault(name, {})["url"] = url
    _link(home.runs, path / "runs")


def _link(target: Path, link: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target, target_is_directory=True)
