"""Broken inputs: each is quarantined with its reason, or an error that names file and fix."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources
from zerovl.data.manifest import Manifest
from zerovl.data.raw import s3_source
from zerovl.data.raw.records import name_error, whole_number
from zerovl.data.raw.webdataset import SECOND_RUN
from zerovl.errors import ZeroVLError
from zerovl.params import DataParams, Params, PrepareParams, SourceParams
from zerovl.stages import prepare
from zerovl.workspace import Workspace


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROVL_WORKERS", "1")


def run_sources(root: Path, *sources: dict[str, Any], **settings: Any) -> Manifest:
    values = {"tokenizer_vocab": 0} | settings
    chosen = DataParams(sources=[SourceParams(**source) for source in sources])
    return prepare.run(Params(data=chosen, prepare=PrepareParams(**values)), Workspace(root))


def broken_picture(root: Path, data: bytes | None, **settings: Any) -> str:
    """The reason for one broken picture between two good ones, which must stay."""
    folder = root / "raw/a"
    raw_sources.write_zerovl(folder, "train", 3)
    if data is None:
        (folder / "train/1.jpg").unlink()
    else:
        (folder / "train/1.jpg").write_bytes(data)
    manifest = raw_sources.run_prepare(root, **settings)
    info = manifest.splits["a", "train"]
    assert (info.pairs, info.broken) == (2, 1)
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"]]
    assert row["origin"] == "train/1.jpg (train_anno.csv:4)"
    assert (row["image_id"], row["shard"], row["key"]) == (1, None, None)
    assert row["captions"] == ["picture 1, take 1", "picture 1, take 2"]
    return str(row["error"])


def test_truncated_jpeg(tmp_path: Path) -> None:
    assert "truncated" in broken_picture(tmp_path, raw_sources.jpeg(1)[:-200])


def test_text_named_jpg(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, b"<html>404</html>") == "not a picture"


def test_empty_picture(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, b"") == "empty file"


def test_missing_picture(tmp_path: Path) -> None:
    assert broken_picture(tmp_path, None) == "missing file"


def test_decompression_bomb(tmp_path: Path) -> None:
    bomb = raw_sources.encoded(raw_sources.picture(1, (2000, 1500), mode="L"), "PNG")
    assert broken_picture(tmp_path, bomb, max_pixels=1_000_000) == "2000x1500 pixels, more than 1000000"


def test_picture_of_a_kind_that_pillow_knows_in_part(tmp_path: Path) -> None:
    data = bytearray(raw_sources.encoded(raw_sources.picture(1), "DDS"))
    data[80:84] = (0x10001).to_bytes(4, "little")  # flags of a pixel format that it does not implement
    assert broken_picture(tmp_path, bytes(data)) == "NotImplementedError: Unknown pixel format flags 65537"


def test_pipe_instead_of_a_picture(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    place = tmp_path / "raw/a/train/1.jpg"
    place.unlink()
    os.mkfifo(place)
    assert set(raw_sources.errors(raw_sources.run_prepare(tmp_path), "a").values()) == {"not a file"}


def csv_source(root: Path, rows: list[tuple[object, ...]], **settings: Any) -> Manifest:
    for n in range(4):
        place = root / f"raw/a/train/{n}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw_sources.jpeg(n))
    raw_sources.write_csv(root / "raw/a/train_anno.csv", rows)
    return raw_sources.run_prepare(root, **settings)


def test_broken_captions_leave_the_picture(tmp_path: Path) -> None:
    manifest = csv_source(
        tmp_path,
        [
            ("0.jpg", 0, "good", 0),
            ("0.jpg", 0, "  ", 1),
            ("0.jpg", 0, "x" * 1_000_000, 2),
            ("0.jpg", 0, " good too ", 3),
            ("1.jpg", 1, "", 4),
        ],
    )
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert (row["captions"], row["caption_ids"]) == (["good", "good too"], [0, 3])
    assert raw_sources.errors(manifest, "a") == {
        "train_anno.csv:3": "empty caption",
        "train_anno.csv:4": "caption of 1000000 bytes, more than 10000",
        "train_anno.csv:6": "empty caption",
    }
    long = next(row for row in raw_sources.rows(manifest, "a") if row["origin"] == "train_anno.csv:4")
    assert (long["captions"], long["caption_ids"]) == (["x" * 200], [2])


def test_duplicates_in_a_csv(tmp_path: Path) -> None:
    manifest = csv_source(
        tmp_path,
        [("0.jpg", 0, "first", 0), ("1.jpg", 0, "stolen id", 1), ("0.jpg", 0, "again", 0), ("1.jpg", 1, "fine", 1)],
    )
    good = [(row["image_id"], row["captions"]) for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert good == [(0, ["first"]), (1, ["fine"])]
    assert raw_sources.errors(manifest, "a") == {
        "train_anno.csv:3": "image_id 0 already belongs to '0.jpg', here it has '1.jpg'",
        "train_anno.csv:4": "caption_id 0 was used before",
    }


def test_broken_rows_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(raw_sources.jpeg(9))
    manifest = csv_source(
        tmp_path,
        [
            ("0.jpg", "seven", "no id", 0),
            ("0.jpg", 1, "no caption id", ""),
            ("0.jpg", 2),
            ("../../../secret.jpg", 3, "outside", 3),
            (str(tmp_path / "secret.jpg"), 4, "absolute", 4),
            ("2.jpg", 5, "two\nlines", 5),
        ],
    )
    [row] = [row for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert (row["image_id"], row["captions"]) == (5, ["two\nlines"])
    assert list(raw_sources.errors(manifest, "a").values()) == [
        "image_id 'seven' is not a whole number",
        "caption_id '' is not a whole number",
        "row has 2 cells, the header has 4",
        "file name '../../../secret.jpg' leaves its folder",
        f"absolute file name {str(tmp_path / 'secret.jpg')!r}",
    ]


def test_missing_column(tmp_path: Path) -> None:
    raw_sources.write_csv(tmp_path / "raw/a/train_anno.csv", [("0.jpg", "x", 0)], header=("image", "caption", "id"))
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    assert str(error.value).endswith(
        "train_anno.csv: no column image_id, caption_id; found image, caption, id; "
        "expected image, image_id, caption, caption_id in the first line"
    )


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "raw/a/train_anno.csv"
    path.parent.mkdir(parents=True)
    good = "image,image_id,caption,caption_id\n" + "".join(f"{n}.jpg,{n},fine é,{n}\n" for n in range(5000))
    path.write_bytes(good.encode() + "x.jpg,9999,caf\u00e9,9999\n".encode("latin-1"))
    with pytest.raises(ZeroVLError) as error:
        raw_sources.run_prepare(tmp_path)
    byte = len(good.encode()) + len("x.jpg,9999,caf")
    assert f"train_anno.csv: line 5002, byte {byte} (0xe9): not UTF-8; save it as UTF-8" in str(error.value)
    assert "iconv -f WINDOWS-1252 -t UTF-8" in str(error.value)


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/a", "train", 2)
    path = tmp_path / "raw/a/train_anno.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert raw_sources.run_prepare(tmp_path).pairs("a", "train") == 2


def karpathy_source(root: Path, images: list[Any], name: str = "dataset_k.json") -> Path:
    folder = root / "raw/k"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"images": images}))
    return folder


def karpathy_image(number: int, split: str, **changes: Any) -> dict[str, Any]:
    sentences = [{"raw": f"sentence {number}", "sentid": number}]
    return {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences} | changes


def test_karpathy_splits_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = karpathy_source(
        tmp_path,
        [
            karpathy_image(0, "train", filepath="train2014", cocoid=77),
            karpathy_image(1, "restval"),
            karpathy_image(2, "val"),
            karpathy_image(3, "test"),
            karpathy_image(4, "test", filepath="val2014"),
        ],
    )
    for place in ("train2014/0.jpg", "images/1.jpg", "images/2.jpg", "3.jpg", "images/val2014/4.jpg"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(raw_sources.jpeg(5))
    manifest = raw_sources.run_prepare(tmp_path)
    ids = {split: [row["image_id"] for row in raw_sources.rows(manifest, "k", split)] for split in ("train", "valid")}
    assert ids == {"train": [77, 1], "valid": [3, 4]}
    assert raw_sources.errors(manifest, "k", "train") == raw_sources.errors(manifest, "k", "valid") == {}
    assert "k/valid: 1 images of split 'val' left out" in capsys.readouterr().out
    manifest = run_sources(tmp_path, {"name": "k", "path": "raw/k", "evaluation_split": "val", "splits": ["valid"]})
    assert list(manifest.splits) == [("k", "valid")]
    assert [row["image_id"] for row in raw_sources.rows(manifest, "k", "valid")] == [2]


def test_broken_karpathy_entries(tmp_path: Path) -> None:
    folder = karpathy_source(
        tmp_path,
        [
            karpathy_image(0, "train"),
            karpathy_image(1, "train", imgid=0),
            karpathy_image(2, "train", filename="../2.jpg"),
            karpathy_image(3, "train", sentences=[]),
            karpathy_image(4, "train", imgid="four"),
            karpathy_image(5, "train", sentences=[{"raw": "", "sentid": 5}, {"raw": "fine", "sentid": 50}]),
            karpathy_image(6, "train", sentences=[{"raw": "dup", "sentid": 0}, {"raw": "\ud800", "sentid": 60}]),
            "no image",
        ],
    )
    for n in range(7):
        (folder / f"{n}.jpg").write_bytes(raw_sources.jpeg(n))
    manifest = raw_sources.run_prepare(tmp_path)
    found = [row["captions"] for row in raw_sources.rows(manifest, "k") if row["error"] is None]
    assert found == [["sentence 0"], ["fine"]]
    assert [row["error"] for row in raw_sources.rows(manifest, "k") if row["error"]] == [
        "image id 0 was used before",
        "file name '../2.jpg' leaves its folder",
        "no caption",
        "imgid 'four' is not a whole number",
        "empty caption",
        "caption_id 0 was used before",
        "caption is not valid Unicode (a lone surrogate)",
    ]


def test_names_of_a_karpathy_file_that_no_file_can_have(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(raw_sources.jpeg(0))
    names = [("sub", str(outside)), ("", "\ud800.jpg"), ("", f"{'a' * 300}.jpg")]
    folder = karpathy_source(
        tmp_path,
        [karpathy_image(n, "train", filepath=path, filename=name) for n, (path, name) in enumerate(names)]
        + [karpathy_image(9, "train")],
    )
    (folder / "9.jpg").write_bytes(raw_sources.jpeg(9))
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "k")
    assert [row["error"] for row in rows] == [
        f"absolute file name {str(outside)!r}",
        "file name is not valid Unicode",
        "missing file",
        None,
    ]
    assert rows[1]["origin"].startswith("\\ud800.jpg (")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not valid JSON"), ("[]", "no list 'images'"), (f'{{"images": {"1" * 5000}}}', "not valid JSON")],
)
def test_karpathy_file_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    karpathy_source(tmp_path, []).joinpath("dataset_k.json").write_text(text)
    with pytest.raises(ZeroVLError, match=reason):
        raw_sources.run_prepare(tmp_path)


def tar_errors(root: Path) -> list[str]:
    return list(raw_sources.errors(raw_sources.run_prepare(root), "w").values())


def test_webdataset_ids_and_captions(tmp_path: Path) -> None:
    own = {"image_id": 12, "captions": ["one", "two"], "caption_ids": [120, 121]}
    raw_sources.write_tar(
        tmp_path / "raw/w/train/00000.tar",
        [
            *raw_sources.sample("000000007", 1, "by key"),
            *raw_sources.sample("some/words", 2, "by hash"),
            ("own.jpg", raw_sources.jpeg(3)),
            ("own.json", json.dumps(own).encode()),
            ("bare.PNG", raw_sources.encoded(raw_sources.picture(4), "PNG")),
            ("bare.txt", b"no json"),
        ],
    )
    raw_sources.write_tar(tmp_path / "raw/w/valid/00000.tar", raw_sources.sample("000000007", 5))
    manifest = raw_sources.run_prepare(tmp_path)
    train = raw_sources.rows(manifest, "w")
    assert [row["captions"] for row in train] == [["by key"], ["by hash"], ["one", "two"], ["no json"]]
    assert (train[0]["image_id"], train[2]["image_id"], train[2]["caption_ids"]) == (7, 12, [120, 121])
    assert train[1]["image_id"] == int.from_bytes(hashlib.sha256(b"some/words").digest()[:8]) >> 1
    assert train[0]["caption_ids"] == [7]
    assert train[3]["recoded"] == "PNG RGB"
    assert train[0]["origin"] == "train/00000.tar:000000007"
    # A second run of img2dataset counts from 0 again; the ids of a source differ all the same.
    assert [row["image_id"] for row in raw_sources.rows(manifest, "w", "valid")] == [SECOND_RUN + 7]


def test_tar_directly_in_the_source(tmp_path: Path) -> None:
    for shard in (1, 0):
        raw_sources.write_tar(tmp_path / f"raw/w/0000{shard}.tar", raw_sources.sample(f"0000{shard}0000", shard))
    (tmp_path / "raw/w/00000_stats.json").write_text("{}")
    manifest = raw_sources.run_prepare(tmp_path)
    assert [row["image_id"] for row in raw_sources.rows(manifest, "w")] == [0, 10000]
    assert list(manifest.splits) == [("w", "train")]


def test_hostile_tar(tmp_path: Path) -> None:
    link, device, hard = tarfile.TarInfo("1.jpg"), tarfile.TarInfo("2.jpg"), tarfile.TarInfo("3.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret.jpg"
    device.type = tarfile.CHRTYPE
    hard.type, hard.linkname = tarfile.LNKTYPE, "0.jpg"
    raw_sources.write_tar(
        tmp_path / "raw/w/0.tar",
        [
            *raw_sources.sample("0", 0),
            ("../9.jpg", raw_sources.jpeg(1)),
            ("/tmp/9.jpg", raw_sources.jpeg(1)),
            (link, b""),
            (device, b""),
            (hard, b""),
            *raw_sources.sample("4", 4),
        ],
    )
    manifest = raw_sources.run_prepare(tmp_path)
    assert [row["image_id"] for row in raw_sources.rows(manifest, "w") if row["error"] is None] == [0, 4]
    assert tar_errors(tmp_path) == [
        "file name '../9.jpg' leaves its folder",
        "absolute file name '/tmp/9.jpg'",
        "a link in a tar (to '../../secret.jpg')",
        "neither a plain file nor a folder in a tar",
        "a link in a tar (to '0.jpg')",
    ]


def test_member_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("cc3m.v1")
    folder.type = tarfile.DIRTYPE
    raw_sources.write_tar(
        tmp_path / "raw/w/0.tar",
        [
            (folder, b""),
            *raw_sources.sample("cc3m.v1/7", 7),
            ("caf\udce9.jpg", raw_sources.jpeg(8)),
            ("caf\udce9.txt", b"coffee"),
        ],
    )
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "w")
    assert [(row["captions"], row["error"], row["origin"]) for row in rows] == [
        (["a caption"], None, "0.tar:cc3m.v1/7"),
        (["coffee"], None, "0.tar:caf\\udce9"),
    ]


def test_broken_samples_of_a_tar(tmp_path: Path) -> None:
    raw_sources.write_tar(
        tmp_path / "raw/w/0.tar",
        [
            *raw_sources.sample("0", 0),
            ("1.txt", b"no picture"),
            ("2.jpg", raw_sources.jpeg(2)),
            ("3.jpg", raw_sources.jpeg(3)),
            ("3.txt", b"caf\xe9"),
            ("4.jpg", raw_sources.jpeg(4)),
            ("4.json", b"{"),
            ("4.txt", b"fine"),
            *raw_sources.sample("5", 5, " "),
            *raw_sources.sample("000", 6),
            ("7.jpg", raw_sources.jpeg(7)),
            ("7.png", raw_sources.jpeg(7)),
            ("7.txt", b"two pictures"),
        ],
    )
    assert tar_errors(tmp_path) == [
        "no picture with this key",
        "no caption: neither .txt nor a caption in .json",
        "its .txt is not UTF-8 (byte 3)",
        "its .json is not valid JSON (JSONDecodeError)",
        "empty caption",
        "image_id 0 was used before",
        "two pictures with the same key",
    ]


def offsets(path: Path) -> dict[str, int]:
    with tarfile.open(path) as tar:
        return {member.name: member.offset for member in tar}


@pytest.mark.parametrize(
    ("cut_at", "shift", "kept"),
    [
        ("2.jpg", 700, [0, 1]),  # in a picture
        ("2.jpg", 200, [0, 1]),  # in a header
        ("2.json", 0, [0, 1]),  # between the members of a sample
        ("2.jpg", 0, [0, 1]),  # between samples: only the end mark is missing
    ],
)
def test_truncated_tar(tmp_path: Path, cut_at: str, shift: int, kept: list[int]) -> None:
    path = tmp_path / "raw/w/0.tar"
    raw_sources.write_tar(path, [member for n in range(4) for member in raw_sources.sample(str(n), n)])
    os.truncate(path, offsets(path)[cut_at] + shift)
    raw_sources.write_tar(tmp_path / "raw/w/1.tar", raw_sources.sample("8", 8))
    manifest = raw_sources.run_prepare(tmp_path)
    assert [row["image_id"] for row in raw_sources.rows(manifest, "w") if row["error"] is None] == [*kept, 8]
    [(origin, reason)] = raw_sources.errors(manifest, "w").items()
    assert origin == "0.tar"
    assert "truncated" in reason
    assert "what comes before it is used" in reason


def test_rubbish_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "raw/w/0.tar"
    raw_sources.write_tar(path, [member for n in range(3) for member in raw_sources.sample(str(n), n)])
    start = offsets(path)["1.jpg"]
    data = bytearray(path.read_bytes())
    data[start : start + 512] = b"\xa5" * 512
    path.write_bytes(data)
    raw_sources.write_tar(tmp_path / "raw/w/1.tar", raw_sources.sample("8", 8))
    (tmp_path / "raw/w/2.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "raw/w/3.tar").write_bytes(b"")
    manifest = raw_sources.run_prepare(tmp_path)
    assert [row["image_id"] for row in raw_sources.rows(manifest, "w") if row["error"] is None] == [0, 8]
    found = raw_sources.errors(manifest, "w")
    assert found["0.tar"] == f"damaged tar at byte {start}; what comes before it is used"
    assert found["2.tar"].startswith("not a tar, or truncated")
    assert found["3.tar"].startswith("not a tar, or truncated")


def test_unknown_layout(tmp_path: Path) -> None:
    (tmp_path / "raw/a").mkdir(parents=True)
    with pytest.raises(ZeroVLError, match=r"source 'a': raw/a is empty; looked for train_anno\.csv"):
        raw_sources.run_prepare(tmp_path)
    (tmp_path / "raw/a/pairs.tsv").touch()
    with pytest.raises(ZeroVLError, match=r"has no known layout; .*dataset\*\.json \(karpathy\), \*\.tar"):
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


@pytest.mark.parametrize("name", ["/a.jpg", "../a.jpg", "a/../../b", "C:\\a.jpg", "..\\a", "\\\\host\\a", "", "a\0b"])
def test_refused_names(name: str) -> None:
    assert name_error(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..b", "ü 1.jpg"])
def test_accepted_names(name: str) -> None:
    assert name_error(name) is None


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in ("007", " 5 ", 3, 2**63 - 1)] == [7, 5, 3, 2**63 - 1]
    assert [whole_number(value) for value in ("-1", "1.0", "", True, None, 1.0, 2**63, "٣", "9" * 30)] == [None] * 9


@pytest.mark.parametrize("workers", ["1", "2"])
def test_source_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    """Against a real server; each fetched tar is gone as soon as it is packed."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("ZEROVL_WORKERS", workers)
        s3_source._client.cache_clear()
        bucket = boto3.resource("s3").create_bucket(Bucket="pairs")
        for shard in range(3):
            path = tmp_path / f"local/w/train/0000{shard}.tar"
            raw_sources.write_tar(
                path, [m for n in range(5) for m in raw_sources.sample(f"0000{shard}000{n}", 10 * shard + n)]
            )
            bucket.upload_file(str(path), f"some/prefix/train/0000{shard}.tar")
        bucket.put_object(Key="some/prefix-of-another/0.tar", Body=b"")
        source = {"name": "w", "path": "s3://pairs/some/prefix"}
        remote = run_sources(tmp_path, source, shard_samples=4)
        assert [row["image_id"] for row in raw_sources.rows(remote, "w")][4:6] == [4, 10000]
        assert remote.pairs("w", "train") == 15
        assert raw_sources.rows(remote, "w")[0]["origin"] == "s3://pairs/some/prefix/train/00000.tar:000000000"
        assert not list((tmp_path / "data/shards").glob(".*"))
        local = run_sources(tmp_path, {"name": "w", "path": "local/w"}, shard_samples=4)
        assert local.digest == remote.digest
        with pytest.raises(ZeroVLError, match=r"s3://nowhere/x: .*NoSuchBucket.*AWS_ENDPOINT_URL"):
            run_sources(tmp_path, {"name": "w", "path": "s3://nowhere/x"})
        with pytest.raises(ZeroVLError, match="source 'w': s3://pairs/void"):
            run_sources(tmp_path, {"name": "w", "path": "s3://pairs/void"})
    finally:
        server.stop()
        s3_source._client.cache_clear()


def test_fetched_tars_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(6):
        raw_sources.write_tar(
            tmp_path / f"store/{shard}.tar", [m for n in range(3) for m in raw_sources.sample(f"{shard}{n}", n)]
        )
    spool = tmp_path / "data/shards/.fetched"
    most = 0

    def fetch(uri: str, path: Path) -> None:
        nonlocal most
        path.write_bytes((tmp_path / "store" / Path(uri).name).read_bytes())
        most = max(most, len(list(spool.iterdir())))

    monkeypatch.setattr(s3_source, "list_tars", lambda uri: [f"{uri}/{shard}.tar" for shard in range(6)])
    monkeypatch.setattr(s3_source, "fetch", fetch)
    manifest = run_sources(tmp_path, {"name": "w", "path": "s3://store/x"}, shard_samples=4)
    assert (manifest.pairs("w", "train"), raw_sources.errors(manifest, "w")) == (18, {})
    assert most == 2  # the one being packed, and the next
    assert not spool.exists()


def test_s3_source_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.exceptions", None)
    s3_source._client.cache_clear()
    with pytest.raises(ZeroVLError, match="need boto3"):
        s3_source.list_tars("s3://bucket/cc3m")
