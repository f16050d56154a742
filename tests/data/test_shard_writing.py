"""What webdataset's writer makes of samples: the bytes that a plain tar would have, whatever the clock and the user."""

import gc
import hashlib
import json
import sys
import tarfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from zerovl.data.shard_writing import ShardWriter, sample_members
from zerovl.data.shards import ShardReader

LONGEST = f"{'s' * 64}-{2**63}"  # that a key gets: a source's name and an id
SAMPLES = [("a-0", b"x" * 1000, "two\nlines"), (LONGEST, b"y" * 1024, "größer"), ("a-2", b"", "empty")]


def write(path: Path) -> tuple[list[tuple[int, int]], int, str]:
    with ExitStack() as stack:
        shard = ShardWriter(path, stack)
        places = [shard.add(sample_members(key, data, "s", 7, [text], [8])) for key, data, text in SAMPLES]
        return places, *shard.finish()


def by_hand() -> bytes:
    """The reference: USTAR headers of mode 644, all else 0, members padded to blocks, the tar to records."""
    tar = b""
    for key, data, text in SAMPLES:
        description = {"image_id": 7, "captions": [text], "caption_ids": [8], "source": "s"}
        for extension, content in (("jpg", data), ("json", json.dumps(description, ensure_ascii=False).encode())):
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size = len(content)
            tar += header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
    end = 2 * tarfile.BLOCKSIZE
    return tar + bytes(end + -(len(tar) + end) % tarfile.RECORDSIZE)


def test_a_shard_has_the_bytes_of_its_samples_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, size, digest = write(tmp_path / "0.tar")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert write(tmp_path / "1.tar") == (places, size, digest)
    found = (tmp_path / "0.tar").read_bytes()
    assert found == by_hand() == (tmp_path / "1.tar").read_bytes()
    assert (size, digest) == (len(found), hashlib.sha256(found).hexdigest())
    reader = ShardReader(tmp_path)
    assert [(s.key, s.image, s.captions[0]) for s in (reader.read("0.tar", *place) for place in places)] == SAMPLES


def test_no_sample_no_shard(tmp_path: Path) -> None:
    with ExitStack() as stack:
        assert ShardWriter(tmp_path / "0.tar", stack).finish() == (0, "")
    assert list(tmp_path.iterdir()) == []


def stop_after_a_sample(path: Path) -> None:
    with ExitStack() as stack:
        shard = ShardWriter(path, stack)
        shard.add(sample_members("a-0", b"x", "s", 7, ["text"], [8]))
        raise ValueError("stops here")


def test_a_shard_that_is_not_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # what other tests left open is told here, and is not this one's
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="stops here"):
            stop_after_a_sample(tmp_path / "0.tar")
        gc.collect()
    assert [*complaints, *warned] == []
    assert list(tmp_path.iterdir()) == []
