"""Releases as git tags that GTO and `dvc artifacts` read."""

from pathlib import Path

from flows.runtime import tags
from tests.support.project_copy import commit, copy_project, git


def listed(root: Path) -> list[str]:
    return git(root, "tag", "--list", "--sort=refname").splitlines()


def test_versions_and_aliases(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    first = git(root, "rev-parse", "HEAD")
    second = commit(root, "second")
    tags.tag_version(root, "zerovl", 1, first)
    tags.tag_version(root, "zerovl", 1, second)  # a version has one commit
    tags.tag_version(root, "zerovl", 2, second)
    assert listed(root) == ["zerovl@v1.0.0", "zerovl@v2.0.0"]
    assert git(root, "rev-parse", "zerovl@v1.0.0^{commit}") == first
    tags.tag_alias(root, "zerovl", 1, "production")
    tags.tag_alias(root, "zerovl", 1, "production")  # tried again
    tags.tag_alias(root, "zerovl", 2, "production")
    tags.tag_alias(root, "zerovl", 1, "production")  # a rollback
    tags.tag_alias(root, "zerovl", 7, "production")  # registered without tags
    moves = [name for name in listed(root) if "#" in name]
    assert moves == ["zerovl#production#1", "zerovl#production#2", "zerovl#production#3"]
    assert [git(root, "rev-parse", f"{name}^{{commit}}") for name in moves] == [first, second, first]


def test_tags_go_to_the_remote_also_those_of_an_earlier_attempt(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    head = git(root, "rev-parse", "HEAD")
    tags.tag_version(root, "zerovl", 1, head)
    tags.tag_alias(root, "zerovl", 1, "production")
    tags.push(root, "origin", head)
    assert listed(tmp_path / "remote.git") == ["zerovl#production#1", "zerovl@v1.0.0"]
    assert not tags.wanted()
