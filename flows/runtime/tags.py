"""Releases as git tags in GTO's form, for those who fetch models with `dvc artifacts get`.

Off unless `ZEROVL_GIT_TAGS` says on: `zerovl@v3.0.0` says of which commit version 3 is,
`zerovl#production#2` that it is in production. The registry stays what decides; the tags follow it.
"""

from __future__ import annotations

from pathlib import Path

from flows.runtime.git import NETWORK_SECONDS, git, identity


def tag_version(root: Path, name: str, version: int, commit: str) -> None:
    """Tag the commit of a version; nothing where it has its tag."""
    from gto import api

    if not git(root, "tag", "--list", _tag(name, version)):
        author, address = identity(root)
        api.register(str(root), name, commit, version=f"v{version}.0.0", author=author, author_email=address)


def tag_alias(root: Path, name: str, version: int, alias: str) -> None:
    """Tag a version, which must have its own tag, as the holder of an alias; nothing where it is the holder."""
    from gto import api

    commit = commit_of(root, name, version)
    holders = git(root, "tag", "--list", "--sort=-version:refname", f"{name}#{alias}#*").splitlines()
    if commit is None or (holders and git(root, "rev-parse", f"{holders[0]}^{{commit}}") == commit):
        return
    author, address = identity(root)
    # `force`: a version may come back to an alias that it has had before.
    api.assign(str(root), name, alias, version=f"v{version}.0.0", force=True, author=author, author_email=address)


def commit_of(root: Path, name: str, version: int) -> str | None:
    """Return the commit that a version's tag names; None where it has none."""
    tag = _tag(name, version)
    return git(root, "rev-parse", f"{tag}^{{commit}}") if git(root, "tag", "--list", tag) else None


def push(root: Path, remote: str, commit: str) -> None:
    """Push all tags of a commit, also those that an earlier attempt made."""
    if found := git(root, "tag", "--points-at", commit).splitlines():
        git(root, "push", "--no-verify", remote, *(f"refs/tags/{tag}" for tag in found), seconds=NETWORK_SECONDS)


def _tag(name: str, version: int) -> str:
    return f"{name}@v{version}.0.0"
