"""Which sources there are and how each is laid out: detected, or named with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import raw_sources
from tests.support.raw_sources import run_sources
from zerovl.data.raw.sources import resolve
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, SourceParams


def test_what_lies_deeper_or_beside_its_caption_is_hinted_at(tmp_path: Path) -> None:
    folder = tmp_path / "raw/a/train"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(raw_sources.jpeg(0))
    (folder / "0.txt").write_text("a dog")
    with pytest.raises(
        ZeroVLError, match=r"pictures in .*/a/train have a \.txt beside them: make a tar of them, tar --s"
    ):
        raw_sources.run_prepare(tmp_path)
    (folder / "pairs.csv").write_text("image,caption\n0.jpg,a dog\n")
    with pytest.raises(
        ZeroVLError, match=r"; its train/ is a source in the layout table: name that folder in data\.sou"
    ):
        raw_sources.run_prepare(tmp_path)


def test_unknown_layout(tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    with pytest.raises(ZeroVLError, match=r"source 'a': raw/a is empty; looked for train_anno\.csv"):
        raw_sources.run_prepare(tmp_path)
    (tmp_path / "raw/a/mine.tsv").touch()
    with pytest.raises(ZeroVLError, match=r"has no known layout; .*dataset\*\.json \(karpathy\), \*\.tar"):
        raw_sources.run_prepare(tmp_path)
    with pytest.raises(
        ZeroVLError, match=r"shows each; it has a table, mine\.tsv: name .* layout: table and table: mine"
    ):
        raw_sources.run_prepare(tmp_path)


def test_ambiguous_layout(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    raw_sources.write_tar(tmp_path / "raw/a/0.tar", raw_sources.sample("0", 0))
    with pytest.raises(ZeroVLError, match=r"fits the layouts zerovl and webdataset; name it in data\.sources"):
        raw_sources.run_prepare(tmp_path)
    assert run_sources(tmp_path, {"name": "a", "path": "raw/a", "layout": "webdataset"}).pairs("a", "train") == 1


def test_empty_sources(tmp_path: Path) -> None:
    raw_sources.write_csv(tmp_path / "raw/a/train_anno.csv", [])
    with pytest.raises(ZeroVLError, match=r"source 'a': .* has no samples"):
        raw_sources.run_prepare(tmp_path)
    assert not (tmp_path / "data/manifest/manifest.json").exists()
    with pytest.raises(ZeroVLError, match="has train, wanted: valid"):
        run_sources(tmp_path, {"name": "a", "path": "raw/a", "splits": ["valid"]})
    with pytest.raises(ZeroVLError, match="no such folder; correct its path"):
        run_sources(tmp_path, {"name": "b", "path": "raw/b"})
    (tmp_path / "raw/a/train_anno.csv").unlink()
    (tmp_path / "raw/a").rmdir()
    with pytest.raises(ZeroVLError, match="has no sub-folder"):
        raw_sources.run_prepare(tmp_path)


def test_names_of_source_folders(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/my pictures", "train", 1)
    with pytest.raises(ZeroVLError, match="letters, digits"):
        raw_sources.run_prepare(tmp_path)


@pytest.mark.parametrize("name", ["mean", "pool"])
def test_a_source_has_no_name_of_scores_over_all_sources(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw" / name).mkdir(parents=True)
    for data in (DataParams(raw="raw"), DataParams(sources=[SourceParams(name=name, path="raw")])):
        with pytest.raises(ZeroVLError, match=f"source .{name}.: scores of .* have that name, .*; rename its folder"):
            resolve(data, tmp_path)


def test_what_macos_leaves_beside_sources_is_none(tmp_path: Path) -> None:
    raw_sources.write_tar(tmp_path / "raw/a/train/0.tar", raw_sources.sample("0", 0))
    for debris in ("__MACOSX/a", ".ipynb_checkpoints"):
        (tmp_path / "raw" / debris).mkdir(parents=True)
    (tmp_path / "raw/a/train/._0.tar").write_bytes(b"Mac OS X")
    (tmp_path / "raw/.DS_Store").write_bytes(b"Bud1")
    manifest = raw_sources.run_prepare(tmp_path)
    assert {name: (info.pairs, info.broken) for name, info in manifest.splits.items()} == {("a", "train"): (1, 0)}


def test_home_is_written_out_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    raw_sources.write_tar(tmp_path / "home/pictures/a/0.tar", raw_sources.sample("0", 0))
    manifest = run_sources(tmp_path / "project", {"name": "a", "path": "~/pictures/a"})
    assert manifest.pairs("a", "train") == 1
    assert DataParams(raw="~/pictures").raw == str(tmp_path / "home/pictures")
    assert [source.path for source in resolve(DataParams(raw="~/pictures"), tmp_path / "project")] == [
        str(tmp_path / "home/pictures/a")
    ]


def test_tars_and_tables_beside_the_folders_of_sources_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw_sources.write_tar(tmp_path / "raw/0.tar", raw_sources.sample("0", 0))
    with pytest.raises(
        ZeroVLError, match=r"has no sub-folder; .*; 0\.tar lies beside .* put it into a folder of its own"
    ):
        raw_sources.run_prepare(tmp_path)
    raw_sources.write_csv(tmp_path / "raw/pairs.csv", [])
    for other in ("a.dvc", ".gitignore", "._0.tar"):
        (tmp_path / "raw" / other).touch()
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 1)
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 1
    said = "data.raw: raw: 0.tar and 1 more lie beside the sources' folders, which is not read: put it into a folder"
    assert [record.message.startswith(said) for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("train.json", r"; train\.json has JSON lines: rename it to train\.jsonl"),
        ("data/train/metadata.csv", "; its data/ is an imagefolder: name that folder in data.sources"),
    ],
)
def test_json_lines_and_an_inner_imagefolder_get_a_hint(tmp_path: Path, file: str, hint: str) -> None:
    path = tmp_path / "raw/a" / file
    path.parent.mkdir(parents=True)
    path.write_text('{"image": "0.jpg", "caption": "zero"}\n{"image": "1.jpg", "caption": "one"}\n')
    with pytest.raises(ZeroVLError, match=hint):
        raw_sources.run_prepare(tmp_path)
