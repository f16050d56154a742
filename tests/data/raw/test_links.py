"""Links inside `data.raw`: what DVC follows is followed, what it does not see is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl.data.raw.sources import resolve
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, Params, SourceParams
from zerovl.stages import prepare
from zerovl.workspace import Workspace


@pytest.mark.parametrize("place", ["", "train", "train/deep"])
def test_a_link_to_a_folder_is_refused_with_the_fix(tmp_path: Path, place: str) -> None:
    link, target = tmp_path / "raw/a" / place, tmp_path / "elsewhere"
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 1)
    (tmp_path / "raw/a/train/deep").mkdir()
    link.rename(target)
    link.symlink_to(target)
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    text = str(error.value)
    assert text.startswith(f"source 'a': {link}: a link to a folder, behind which DVC does not look")
    assert f"rm {link} && cp -rs {target} {link}; or" in text
    assert not (tmp_path / "data").exists()


def test_a_link_to_a_folder_in_no_known_layout_is_refused_as_a_link(tmp_path: Path) -> None:
    """What lies behind it may be a whole disk, which is not looked through for a hint."""
    (tmp_path / "disk/part").mkdir(parents=True)
    raw_sources.write_tar(tmp_path / "disk/part/0.tar", raw_sources.sample("0", 0))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a").symlink_to(tmp_path / "disk")
    with pytest.raises(ZeroVLError, match=r"source 'a': .*/raw/a: a link to a folder, behind which DVC does not look"):
        raw_sources.run_prepare(tmp_path)


def test_a_link_to_nothing_is_refused_beside_a_good_source(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 1)
    gone, nowhere = tmp_path / "raw/gone", tmp_path / "nowhere"
    gone.symlink_to(nowhere)
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    assert str(error.value) == (
        f"data.raw: raw: {gone} (a link to '{nowhere}'): nothing can be reached there, and it may be a whole source; "
        "mount its disk, correct the link, or delete it"
    )
    with pytest.raises(ZeroVLError, match=r"source 'b': raw/gone: no such folder \(a link to '.*/nowhere'\); correct"):
        run_sources(tmp_path, {"name": "b", "path": "raw/gone"})
    with pytest.raises(ZeroVLError, match=r"data\.raw: raw/gone: no such folder \(a link to '.*/nowhere'\); put"):
        resolve(DataParams(raw="raw/gone"), tmp_path)
    gone.rename(tmp_path / "raw/.gone")  # as editors keep locks
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 1


@pytest.mark.parametrize("name", ["valid", "valid_anno.csv", "deep/1.tar", "notes"])
def test_a_link_to_nothing_inside_a_source_is_refused(tmp_path: Path, name: str) -> None:
    """It may be a split, which nobody would miss."""
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 1)
    link, nowhere = tmp_path / "raw/a" / name, tmp_path / "nowhere"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(nowhere)
    said = f"source 'a': {link} (a link to '{nowhere}'): nothing can be reached there, and it may be a split, a tar or"
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    assert str(error.value).startswith(said)
    (tmp_path / "raw/a").rename(tmp_path / "a")
    if link.parent.name == "a":  # of sources elsewhere their own folder is looked at
        with pytest.raises(ZeroVLError, match="nothing can be reached there, and it may be a split"):
            run_sources(tmp_path, {"name": "a", "path": "a"})
    else:
        assert run_sources(tmp_path, {"name": "a", "path": "a"}).pairs("a", "train") == 1


def test_links_to_nothing_that_are_pictures_or_debris_are_left_to_the_table(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    (tmp_path / "raw/a/train/1.jpg").unlink()
    for name in ("1.jpg", "unnamed.PNG", ".lock"):
        (tmp_path / "raw/a/train" / name).symlink_to(tmp_path / "nowhere")
    manifest = raw_sources.run_prepare(tmp_path)
    assert manifest.pairs("a", "train") == 1
    assert list(raw_sources.errors(manifest, "a").values()) == ["missing file"]


@pytest.mark.parametrize(("path", "link"), [("raw/a/b/c", "raw/a"), ("raw/a/b/c", "raw/a/b"), ("raw", "raw/a")])
def test_a_link_in_the_middle_of_a_path_is_refused(tmp_path: Path, path: str, link: str) -> None:
    raw_sources.write_zerovl(tmp_path / path, "train", 1)
    (tmp_path / "raw/a").mkdir(exist_ok=True)
    (tmp_path / link).rename(tmp_path / "elsewhere")
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    source = SourceParams(name="x", path=path)
    with pytest.raises(ZeroVLError) as error:
        prepare.run(Params(data=DataParams(raw="raw", sources=[source])), Workspace(tmp_path))
    text = str(error.value)
    assert text.startswith(f"source 'x': {tmp_path / link}: a link to a folder, behind which DVC does not look")
    assert f"rm {tmp_path / link} && cp -rs {tmp_path / 'elsewhere'} {tmp_path / link}; or" in text


def test_a_link_above_data_raw_is_followed(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "disk/raw/a", "train", 2)
    (tmp_path / "raw").symlink_to(tmp_path / "disk/raw")
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 2


def test_links_to_files_and_links_outside_are_followed(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "real/a", "train", 2)
    for path in (tmp_path / "real/a").rglob("*.*"):  # as `cp -rs` does
        link = tmp_path / "raw/a" / path.relative_to(tmp_path / "real/a")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 2
    (tmp_path / "linked").symlink_to(tmp_path / "real/a")
    assert run_sources(tmp_path, {"name": "b", "path": "linked"}).pairs("b", "train") == 2


def test_dvc_sees_changes_behind_links_to_files_and_none_behind_links_to_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for the rule: where a later DVC follows folders too, this fails and the rule can go."""
    from dvc.repo import Repo

    (tmp_path / "project/raw/a").mkdir(parents=True)
    for name in ("file", "folder/inner"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as it was")
    (tmp_path / "project/raw/a/file").symlink_to(tmp_path / "file")
    (tmp_path / "project/raw/a/folder").symlink_to(tmp_path / "folder")
    stage = "stages: {prepare: {cmd: 'true', deps: [linked]}}\n"
    (tmp_path / "project/linked").symlink_to("raw")  # as data.raw may be
    (tmp_path / "project/dvc.yaml").write_text(stage)
    monkeypatch.chdir(tmp_path / "project")
    with Repo.init(str(tmp_path / "project"), no_scm=True) as repo:
        repo.reproduce()
        assert "nfiles: 1" in (tmp_path / "project/dvc.lock").read_text()
        (tmp_path / "folder/inner").write_text("another text")
        assert repo.status() == {}
        (tmp_path / "file").write_text("another text")
        assert repo.status() == {"prepare": [{"changed deps": {"linked": "modified"}}]}
