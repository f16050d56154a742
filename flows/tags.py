"""Releases as git tags in GTO's form, for those who fetch models with `dvc artifacts get`.

Off unless `ZEROVL_GIT_TAGS` is set: `zerovl@v3.0.0` says of which commit version 3 is,
`zerovl#production#2` that it is in production. The registry stays what decides; the tags follow it.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.checkout import git, identity

VARIABLE = "ZEROVL_GIT_TAGS"


def wanted() -> bool:
    return os.environ.get(VARIABLE, "") not in ("", "0")


def tag_version(root: Path, name: str, version: int, commit: str) -> list[str]:
    """Tag the commit of a version; nothing where it has its tag. Returns the new tags."""
    from gto import api

    if git(root, "tag", "--list", _tag(name, version)):
        return []
    before = _tags(root)
    author, address = identity(root)
    api.register(str(root), name, commit, version=f"v{version}.0.0", author=author, author_email=address)
    return sorted(_tags(root) - before)


def tag_alias(root: Path, name: str, version: int, alias: str) -> list[str]:
    """Tag a version, which must have its own tag, as the holder of an alias. Returns the new tags."""
    from gto import api

    if not git(root, "tag", "--list", _tag(name, version)):
        return []
    before = _tags(root)
    author, address = identity(root)
    # `force`: a version may come back to an alias that it has had before.
    api.assign(
        str(root), name, alias, version=f"v{version}.0.0", force=True, author=author, author_email=address
    )  # fmt: skip
    return sorted(_tags(root) - before)


def push(root: Path, remote: str | None, tags: list[str]) -> None:
    if remote and tags:
        git(root, "push", "--no-verify", remote, *(f"refs/tags/{tag}" for tag in tags))


def _tag(name: str, version: int) -> str:
    return f"{name}@v{version}.0.0"


def _tags(root: Path) -> set[str]:
    return set(git(root, "tag", "--list").splitlines())
