"""What `prepare` writes: the same bytes every time, addressable samples, nothing half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from tests.support import raw_sources
from tests.support.paths import SHARED
from zerovl.data.manifest import Manifest
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file
from zerovl.params import DataParams, Params, PrepareParams, SourceParams
from zerovl.stages import prepare
from zerovl.workspace import Workspace

REAL = SHARED / "data"


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")


def three_layouts(root: Path) -> None:
    raw_sources.write_zerovl(root / "raw/a", "train", 11)
    raw_sources.write_zerovl(root / "raw/a", "valid", 3, first=100)
    (root / "raw/a/train/5.jpg").write_bytes(b"no picture")
    raw_sources.write_tar(
        root / "raw/b/train/00000.tar",
        [m for n in range(7) for m in raw_sources.sample(f"{n:09d}", n, f"tar caption {n}")],
    )
    images = [
        {
            "filename": f"{n}.jpg",
            "imgid": n,
            "split": "test" if n > 4 else "train",
            "sentences": [{"raw": f"sentence {n}", "sentid": n}],
        }
        for n in range(7)
    ]
    (root / "raw/c").mkdir()
    (root / "raw/c/dataset_c.json").write_text(json.dumps({"images": images}))
    for n in range(7):
        (root / f"raw/c/{n}.jpg").write_bytes(raw_sources.jpeg(200 + n))


def test_bytes_do_not_depend_on_workers_or_earlier_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    three_layouts(tmp_path)
    raw_sources.run_prepare(tmp_path, tokenizer_vocab=120)
    first = raw_sources.all_bytes(tmp_path / "data")
    out = capsys.readouterr().out
    assert re.search(r"^a/train +10 pairs +20 captions +1 broken +3 shards +\d+ kB of tars$", out, re.MULTILINE)
    listed = f"`zerovl validate` lists each in {tmp_path / 'reports/validation/broken.csv'}"
    assert f"a/train: 1 broken input (1 not a picture); {listed}" in out
    assert out.splitlines()[-1] == f"manifest: {tmp_path / 'data/manifest'}"
    assert len(first) == 3 + 2 + 2 + 2 + 5 * 2 + 1 + 4, sorted(first)
    stale = tmp_path / "data/shards/gone/train/000000.tar"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    monkeypatch.setenv("ZEROVL_WORKERS", "2")
    raw_sources.run_prepare(tmp_path, tokenizer_vocab=120)
    assert raw_sources.all_bytes(tmp_path / "data") == first


def test_manifest_describes_every_byte(tmp_path: Path) -> None:
    three_layouts(tmp_path)
    manifest = raw_sources.run_prepare(tmp_path)
    assert Manifest.load(tmp_path / "data/manifest").splits == manifest.splits
    assert manifest.sources("valid") == ["a", "c"]
    assert manifest.pairs("a", "train") == 10
    for (source, split), info in manifest.splits.items():
        shards = tmp_path / "data/shards"
        good = [row for row in raw_sources.rows(manifest, source, split) if row["error"] is None]
        assert len(good) == info.pairs == sum(shard.samples for shard in info.shards)
        assert sum(len(row["captions"]) for row in good) == info.captions
        index = manifest.index(source, split)
        assert len(index) == info.pairs
        for row, entry in zip(good, index, strict=True):
            shard = info.shards[entry["shard"]]
            assert (row["shard"], row["offset"], row["size"]) == (shard.path, entry["offset"], entry["size"])
            data = (shards / shard.path).read_bytes()[row["offset"] : row["offset"] + row["size"]]
            assert len(data) % 512 == 0
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                members = {member.name: member for member in tar.getmembers()}
                assert list(members) == [f"{row['key']}.jpg", f"{row['key']}.json"]
                assert all(m.mtime == m.uid == m.gid == 0 and not m.uname for m in members.values())
                image, text = (tar.extractfile(name).read() for name in members)  # type: ignore[union-attr]
            assert json.loads(text) == {name: row[name] for name in ("image_id", "captions", "caption_ids", "source")}
            assert row["key"] == f"{source}-{row['image_id']}"
            assert row["recoded"] is None
            assert row["bytes"] == len(image)
            with Image.open(io.BytesIO(image)) as opened:
                assert opened.size == (row["width"], row["height"])
        for shard in info.shards:
            assert shard.bytes == (shards / shard.path).stat().st_size
            assert shard.sha256 == sha256_file(shards / shard.path)


def test_original_bytes_are_kept(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 3)
    manifest = raw_sources.run_prepare(tmp_path)
    with tarfile.open(tmp_path / "data/shards" / manifest.splits["a", "train"].shards[0].path) as tar:
        for n in range(3):
            assert tar.extractfile(f"a-{n}.jpg").read() == raw_sources.jpeg(n)  # type: ignore[union-attr]
    assert [row["sha256"] for row in raw_sources.rows(manifest, "a")] == [
        sha256_file(tmp_path / f"raw/a/train/{n}.jpg") for n in range(3)
    ]


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 10)
    manifest = raw_sources.run_prepare(tmp_path)
    paths = [str(tmp_path / "data/shards" / shard.path) for shard in manifest.splits["a", "train"].shards]
    assert [Path(path).name for path in paths] == ["000000.tar", "000001.tar", "000002.tar"]
    read = list(webdataset.WebDataset(paths, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg", "json"))
    assert [key for key, _, _ in read] == [f"a-{n}" for n in range(10)]
    assert all(image.size == (40, 30) for _, image, _ in read)
    assert read[3][2]["captions"] == ["picture 3, take 1", "picture 3, take 2"]


def test_own_shards_are_a_source_again(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 6)
    first = raw_sources.run_prepare(tmp_path)
    (tmp_path / "second").mkdir()
    (tmp_path / "data/shards").rename(tmp_path / "second/raw")
    second = raw_sources.run_prepare(tmp_path / "second")
    wanted = [
        (row["image_id"], row["captions"], row["caption_ids"], row["sha256"]) for row in raw_sources.rows(first, "a")
    ]
    found = [
        (row["image_id"], row["captions"], row["caption_ids"], row["sha256"]) for row in raw_sources.rows(second, "a")
    ]
    assert found == wanted


def test_pictures_in_another_folder_than_their_table_has_are_told_with_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, table, row in (
        ("a", "train.csv", "image,caption\n0.jpg,red\n1.jpg,blue\n"),
        ("b", "train_anno.csv", "image,image_id,caption,caption_id\n0.jpg,0,red,0\n1.jpg,1,blue,1\n"),
        ("gone", "train.csv", "image,caption\n7.jpg,red\n8.jpg,blue\n"),
        ("whole", "train.csv", "image,caption\nimages/0.jpg,red\nimages/1.jpg,blue\n1.jpg,blue\n"),
    ):
        source = tmp_path / "raw" / name
        (source / "images").mkdir(parents=True)
        (source / table).write_text(row)
        for number in range(2):
            (source / "images" / f"{number}.jpg").write_bytes(raw_sources.jpeg(number))
    raw_sources.run_prepare(tmp_path)
    told = [line for line in capsys.readouterr().out.splitlines() if "is there as" in line]
    of_a, of_b = "the first of 2 missing pictures, is there as images/0.jpg: ", "move the pictures to where the layout"
    fix = "name the source in data.sources with pictures: images, or write that folder into the table"
    assert told[0] == f"a/train: 0.jpg, {of_a}{fix}"
    assert told[1].startswith(f"b/train: train/0.jpg, {of_a}{of_b}")
    assert len(told) == 2


def test_one_split_is_enough_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/only_train", "train", 2)
    raw_sources.write_zerovl(tmp_path / "raw/only_valid", "valid", 2, first=5)
    manifest = raw_sources.run_prepare(tmp_path)
    assert sorted(manifest.splits) == [("only_train", "train"), ("only_valid", "valid")]
    out = capsys.readouterr().out
    assert "no valid split, so never evaluated on (prepare.draw_valid draws one): only_train" in out
    assert "no train split, so never trained on: only_valid" in out


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({}, r"a/train: 3 broken inputs \(3 missing file\); `zerovl validate` lists each in \S+broken\.csv"),
        ({"min_side": 500}, r"a/train: left out by prepare\.filters\.min_side: 3 pictures, 6 captions"),
    ],
)
def test_where_no_training_pair_is_left_it_is_said_why(
    filters: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 3)
    raw_sources.write_zerovl(tmp_path / "raw/a", "valid", 2, first=5)
    if not filters:
        shutil.rmtree(tmp_path / "raw/a/train")
    manifest = raw_sources.run_prepare(tmp_path, tokenizer_vocab=100, filters=raw_sources.asked_filters(**filters))
    out = capsys.readouterr().out
    assert re.search(said, out)
    assert "no tokenizer was learned, since no training pair is left; `zerovl validate` refuses this" in out
    assert manifest.pairs("a", "train") == 0
    assert read_json(tmp_path / "data/tokenizer/source.json") == {"trained": False, "vocab_size": 0}


def test_shards_that_are_all_broken_are_not_written(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 12)
    for n in range(4, 8):
        (tmp_path / f"raw/a/train/{n}.jpg").unlink()
    manifest = raw_sources.run_prepare(tmp_path)
    info = manifest.splits["a", "train"]
    assert (info.pairs, info.broken) == (8, 4)
    assert [shard.path for shard in info.shards] == ["a/train/000000.tar", "a/train/000002.tar"]
    assert manifest.index("a", "train")["shard"].tolist() == [0] * 4 + [1] * 4
    assert [path.name for path in sorted((tmp_path / "data/shards").rglob("*.tar"))] == ["000000.tar", "000002.tar"]


_CHILD = """
import sys
from pathlib import Path
from zerovl.stages import prepare
from zerovl.params import DataParams, Params, PrepareParams
from zerovl.stages import prepare
from zerovl.workspace import Workspace
if __name__ == "__main__":
    settings = PrepareParams(shard_samples=10, tokenizer_vocab=100)
    prepare.run(Params(data=DataParams(raw="raw"), prepare=settings), Workspace(Path(sys.argv[1])))
"""


def _child(root: Path, workers: int) -> subprocess.Popen[bytes]:
    script = root / "child.py"
    script.write_text(_CHILD)
    environment = {**os.environ, "ZEROVL_WORKERS": str(workers)}
    command = [sys.executable, str(script), str(root)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_then_run_again(tmp_path: Path, workers: int) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 60)
    raw_sources.write_tar(tmp_path / "raw/b/0.tar", [m for n in range(900) for m in raw_sources.sample(f"{n}", n % 50)])
    child = _child(tmp_path, workers)
    seen = tmp_path / "data/shards/a/train/000001.tar"
    while not seen.exists():
        assert child.poll() is None, child.stdout.read().decode()  # type: ignore[union-attr]
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.read()  # type: ignore[union-attr]  # ends when the workers have ended too: they hold it open
    child.stdout.close()  # type: ignore[union-attr]
    assert not (tmp_path / "data/manifest/manifest.json").exists(), "it was killed too late to show anything"
    settings: dict[str, Any] = {"shard_samples": 10, "tokenizer_vocab": 100}
    raw_sources.run_prepare(tmp_path, **settings)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (tmp_path / "raw").rename(fresh / "raw")
    raw_sources.run_prepare(fresh, **settings)
    assert raw_sources.all_bytes(tmp_path / "data") == raw_sources.all_bytes(fresh / "data")


def test_full_disk_in_a_worker(tmp_path: Path) -> None:
    """A real failing write: the child may not write files above 8 kB."""
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 20)
    script = tmp_path / "child.py"
    script.write_text("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n" + _CHILD)
    for workers in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path)],
            env={**os.environ, "ZEROVL_WORKERS": workers},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "ZeroVLError" in done.stderr
        assert "bytes free; make room" in done.stderr
        assert str(tmp_path / "data/shards") in done.stderr
        assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_full_disk_while_writing_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 3)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zerovl.data.manifest_writing.SplitWriter._flush", full)
    with pytest.raises(ZeroVLError, match="No space left on device"):
        raw_sources.run_prepare(tmp_path)
    assert list((tmp_path / "data/manifest").iterdir()) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sources are not beside the checkout")
def test_a_real_source(tmp_path: Path) -> None:
    source = SourceParams(name="noto", path=str(REAL / "noto"), splits=["valid"])
    settings = PrepareParams(shard_samples=100, tokenizer_vocab=0)
    manifest = prepare.run(Params(data=DataParams(sources=[source]), prepare=settings), Workspace(tmp_path))
    info = manifest.splits["noto", "valid"]
    with open(REAL / "noto/valid_anno.csv", encoding="utf-8") as file:
        assert info.captions == sum(1 for _ in file) - 1
    assert info.broken == 0
    assert len(info.shards) == -(-info.pairs // 100)
    assert info.pairs == len(list((REAL / "noto/valid").iterdir()))


def test_colour_profiles_that_cannot_be_used_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 3)
    for number in (0, 2):
        data = raw_sources.encoded(raw_sources.picture(number), icc_profile=b"no profile")
        (tmp_path / f"raw/a/train/{number}.jpg").write_bytes(data)
    manifest = raw_sources.run_prepare(tmp_path)
    assert manifest.splits["a", "train"].pairs == 3
    assert [row["recoded"] for row in raw_sources.rows(manifest, "a")] == [None] * 3
    assert "a/train: 2 pictures with a broken colour profile, which was ignored" in caplog.text
