"""Releases as git tags that GTO and `dvc artifacts` read."""

from pathlib import Path

from project import commit, copy_project, git

from flows import tags


def test_versions_and_aliases(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    first = git(root, "rev-parse", "HEAD")
    second = commit(root, "second")
    assert tags.tag_version(root, "zerovl", 1, first) == ["zerovl@v1.0.0"]
    assert tags.tag_version(root, "zerovl", 1, second) == []  # a version has one commit
    assert tags.tag_version(root, "zerovl", 2, second) == ["zerovl@v2.0.0"]
    assert git(root, "rev-parse", "zerovl@v1.0.0^{commit}") == first
    assert tags.tag_alias(root, "zerovl", 1, "production") == ["zerovl#production#1"]
    assert tags.tag_alias(root, "zerovl", 2, "production") == ["zerovl#production#2"]
    assert tags.tag_alias(root, "zerovl", 1, "production") == ["zerovl#production#3"]  # a rollback
    assert git(root, "rev-parse", "zerovl#production#3^{commit}") == first
    assert tags.tag_alias(root, "zerovl", 7, "production") == []  # registered without tags


def test_tags_go_to_the_remote(tmp_path: Path) -> None:
    root = copy_project(tmp_path / "project")
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    made = tags.tag_version(root, "zerovl", 1, "HEAD")
    tags.push(root, "origin", made)
    assert git(tmp_path / "remote.git", "tag", "--list") == "zerovl@v1.0.0"
    tags.push(root, None, made)
    assert not tags.wanted()
