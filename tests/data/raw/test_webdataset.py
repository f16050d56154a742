"""WebDataset tars: ids and captions, hostile members, damaged and cut files."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.support import raw_sources
from zerovl.data.raw.tar_ids import SECOND_RUN


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


def row_of(key: str, picture: int, caption: str, **values: object) -> list[tuple[str, bytes]]:
    description = json.dumps({"key": key, "caption": caption, **values}).encode()
    return [(f"{key}.jpg", raw_sources.jpeg(picture)), (f"{key}.json", description)]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_rows_of_one_id_and_equal_bytes_are_one_picture(split: str, tmp_path: Path) -> None:
    """As img2dataset writes a table with a row a caption and the id of its picture."""
    tar = [
        member for n in range(10) for member in row_of(f"{n:05}", n // 5, f"{n // 5} in way {n % 5}", image_id=n // 5)
    ]
    tar += [*row_of("00010", 2, "own ids", image_id=9, caption_ids=[90]), *row_of("00011", 2, " ", image_id=9)]
    raw_sources.write_tar(tmp_path / f"raw/w/{split}/00000.tar", tar)
    manifest = raw_sources.run_prepare(tmp_path)
    rows = raw_sources.rows(manifest, "w", split)
    used = [row for row in rows if row["error"] is None]
    assert [row["image_id"] for row in used] == [0, 1, 9]
    assert used[1]["captions"] == [f"1 in way {n}" for n in range(5)]
    assert len({number for row in used for number in row["caption_ids"]}) == 11
    assert [(row["error"], row["origin"]) for row in rows if row["error"]] == [
        ("empty caption", f"{split}/00000.tar:00011")
    ]


def test_an_id_that_other_bytes_or_a_later_row_have_was_used_before(tmp_path: Path) -> None:
    tar = [*row_of("0", 0, "a", image_id=5), *row_of("1", 1, "other bytes", image_id=5)]
    tar += [*row_of("2", 2, "between", image_id=6), *row_of("3", 0, "a later row", image_id=5)]
    raw_sources.write_tar(tmp_path / "raw/w/train/00000.tar", tar)
    assert tar_errors(tmp_path) == ["image_id 5 was used before"] * 2


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
        "its .txt is not UTF-8 (byte 3)",
        "its .json is not valid JSON (JSONDecodeError)",
        "empty caption",
        "image_id 0 was used before",
        "no picture with this key",  # what lacks something may still come, up to the end of the tar
        "no caption: neither .txt nor a caption in .json",
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
    assert found["0.tar"] == f"damaged tar at byte {start}; what comes before it is used, at least one sample is lost"
    assert found["2.tar"].startswith("not a tar, or truncated")
    assert found["3.tar"].startswith("not a tar, or truncated")


def test_captions_under_another_key_of_the_json(tmp_path: Path) -> None:
    texts: list[object] = ["one", ["two", "zwei"], 3, None]
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for number, text in enumerate(texts):
        values = {"key": str(number), "caption": "alt text", "recaption": text}
        if text is None:
            del values["recaption"]
        members += [
            (f"{number}.jpg", raw_sources.jpeg(number)),
            (f"{number}.json", json.dumps(values).encode()),
            (f"{number}.txt", b"alt text"),
        ]
    raw_sources.write_tar(tmp_path / "raw/a/0.tar", members)
    manifest = raw_sources.run_sources(tmp_path, {"name": "a", "path": "raw/a", "json_caption": "recaption"})
    good = [row["captions"] for row in raw_sources.rows(manifest, "a") if row["error"] is None]
    assert good == [["one"], ["two", "zwei"]]
    assert raw_sources.errors(manifest, "a") == {
        "0.tar:2": "'recaption' of its .json is neither a text nor a list of texts",
        "0.tar:3": "no 'recaption' in its .json (it has caption, key); json_caption of the source names it",
    }


def test_several_captions_in_a_json_and_a_text_that_says_nothing(tmp_path: Path) -> None:
    samples: list[tuple[object, bytes | None]] = [
        (["one", "two"], None),
        ("by its json", b" \n"),
        (["one", 7], None),
        ("not this", b"by its text"),
        ("", b""),
    ]
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for key, (caption, text) in enumerate(samples):
        members += [(f"{key}.jpg", raw_sources.jpeg(key)), (f"{key}.json", json.dumps({"caption": caption}).encode())]
        members += [] if text is None else [(f"{key}.txt", text)]
    raw_sources.write_tar(tmp_path / "raw/w/0.tar", members)
    rows = raw_sources.rows(raw_sources.run_prepare(tmp_path), "w")
    assert sorted(row["captions"] for row in rows if row["error"] is None) == [
        ["by its json"],
        ["by its text"],
        ["one", "two"],
    ]
    assert sorted(row["error"] for row in rows if row["error"]) == [
        "empty caption",
        "no caption: neither .txt nor a caption in .json",
    ]
