import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.shard_fixture import Written, captions_of, jpeg, write
from zerovl.data import shards
from zerovl.data.shards import Sample, ShardReader, locate, read_row
from zerovl.errors import ZeroVLError


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, {"web": 10})


def read_all(written: Written, reader: ShardReader) -> list[Sample]:
    index = written.manifest.index("web", "train")
    return [reader.read(*locate(written.manifest, record, "web", "train")) for record in index]


def test_reads_what_was_written(written: Written) -> None:
    for number, sample in enumerate(read_all(written, ShardReader(written.shards))):
        assert sample == Sample(
            f"web-{number}",
            jpeg(32, number),
            captions_of("web", number),
            [10 * number + i for i in range(len(sample.captions))],
            number,
            "web",
        )


def test_read_row_is_the_same(written: Written) -> None:
    reader = ShardReader(written.shards)
    assert read_row(written.manifest, reader, "web", "train", 8) == read_all(written, reader)[8]


def test_names_longer_than_a_tar_field(tmp_path: Path) -> None:
    key = "folder" * 12 + "/" + "name" * 20  # 153 characters: USTAR splits it into prefix and name
    path = tmp_path / "0.tar"
    record = json.dumps({"image_id": 1, "captions": ["c"], "caption_ids": [2], "source": "web"}).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for extension, content in (("jpg", b"picture"), ("json", record)):
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        size = tar.offset
    assert ShardReader(tmp_path).read("0.tar", 0, size) == Sample(key, b"picture", ["c"], [2], 1, "web")


def test_works_after_pickling_and_after_close(written: Written) -> None:
    reader = ShardReader(written.shards)
    expected = read_all(written, reader)
    assert read_all(written, pickle.loads(pickle.dumps(reader))) == expected
    reader.close()
    assert read_all(written, reader) == expected


def test_keeps_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "open_files_limit", lambda: 8)
    written = write(tmp_path, {"web": 10}, shard_samples=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = ShardReader(written.shards)
    first = read_all(written, reader)
    assert read_all(written, reader) == first
    assert len(list(Path("/proc/self/fd").iterdir())) - before == 2


def corrupt(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)


def test_damage_names_shard_offset_reason_and_fix(written: Written) -> None:
    index = written.manifest.index("web", "train")
    path, offset, size = locate(written.manifest, index[3], "web", "train")
    shard = written.shards / path
    whole = shard.read_bytes()
    picture_blocks = -(-len(jpeg(32, 3)) // 512) * 512
    json_start = offset + 512 + picture_blocks + 512
    damages = [
        (offset + 3, b"X", "no tar header of a file here"),  # the name: the checksum no longer holds
        (offset, bytes(512), "no tar header"),
        (offset + 148, b"zzzzzz\0 ", "no tar header"),
        (json_start, b"[1]" + b" " * 20, "cannot be parsed"),
        (json_start + 2, b"IMAGE_ID", "lacks or spoils a field"),
    ]
    for position, content, reason in damages:
        corrupt(shard, position, content)
        with pytest.raises(ZeroVLError) as raised:
            ShardReader(written.shards).read(path, offset, size)
        message = str(raised.value)
        assert str(shard) in message
        assert f"byte {offset}" in message
        assert reason in message
        assert "dvc repro -f prepare" in message
        assert "dvc pull" in message
        shard.write_bytes(whole)
    assert ShardReader(written.shards).read(path, offset, size).key == "web-3"


def test_a_cut_off_and_a_missing_shard(written: Written) -> None:
    path, offset, size = locate(written.manifest, written.manifest.index("web", "train")[5], "web", "train")
    shard = written.shards / path
    shard.write_bytes(shard.read_bytes()[: offset + 700])
    with pytest.raises(ZeroVLError, match=rf"damaged at byte {offset} \({size} bytes expected, 700 found"):
        ShardReader(written.shards).read(path, offset, size)
    shutil.rmtree(written.shards)
    with pytest.raises(ZeroVLError, match=r"000000\.tar: no such shard; .*dvc pull"):
        ShardReader(written.shards).read(path, offset, size)


def test_offset_and_size_of_an_old_manifest(written: Written) -> None:
    path, offset, size = locate(written.manifest, written.manifest.index("web", "train")[1], "web", "train")
    with pytest.raises(ZeroVLError, match="past the sample's end"):
        ShardReader(written.shards).read(path, offset, size - 512)
    with pytest.raises(ZeroVLError, match="no tar header"):
        ShardReader(written.shards).read(path, offset + 1, size)
    with pytest.raises(ZeroVLError, match=r"of one key expected, found \['web-1', 'web-2'\]"):
        ShardReader(written.shards).read(path, offset, 2 * size)


def test_s3(written: Written, moto_bucket: str) -> None:
    for path in written.shards.rglob("*.tar"):
        s3.client().upload_file(str(path), moto_bucket, f"some/prefix/{path.relative_to(written.shards)}")
    root = f"s3://{moto_bucket}/some/prefix"
    reader = ShardReader(f"{root}/")
    expected = read_all(written, ShardReader(written.shards))
    assert read_all(written, reader) == expected
    assert read_all(written, pickle.loads(pickle.dumps(reader))) == expected
    with pytest.raises(ZeroVLError, match=rf"{root}/.*no such shard"):
        reader.read("web/train/999999.tar", 0, 512)
    with pytest.raises(ZeroVLError, match="512 bytes expected, 0 found: the shard is cut off"):
        reader.read("web/train/000000.tar", 1 << 30, 512)
    absent = r"s3://absent/prefix/\S+: cannot be read: there is no bucket 'absent' .*AWS_ENDPOINT_URL$"
    with pytest.raises(ZeroVLError, match=absent):  # and no other fix behind this one
        ShardReader("s3://absent/prefix").read("web/train/000000.tar", 0, 512)
    reader.close()
