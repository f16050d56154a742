"""Tars by address: commands, S3 by the project's client, and copies that stay on the node."""

import io
from pathlib import Path

import pytest

from tests.support import s3
from tests.support.raw_sources import sample, write_tar
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.streams.addresses import _Blocks, expand, open_stream
from zerovl.data.streams.kept_tars import KeptTars
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar
from zerovl.errors import ZeroVLError


def test_a_command_is_read_and_one_that_fails_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("0", 0))
    expected = (tmp_path / "0.tar").read_bytes()
    assert open_stream(f"pipe:cat {tmp_path}/0.tar").read() == expected
    kept = KeptTars(tmp_path / "cache", 1 << 30)
    assert kept(f"pipe:cat {tmp_path}/0.tar").read() == expected
    (tmp_path / "0.tar").unlink()
    assert kept(f"pipe:cat {tmp_path}/0.tar").read() == expected
    with pytest.raises(ZeroVLError, match=r"no\.tar: there is no such tar any more"):
        open_stream(f"{tmp_path}/no.tar")


@pytest.mark.parametrize("command", ["false", "cat {tar}; exit 3", "head -c 1024 {tar}; sleep 0.05; exit 3"])
def test_a_command_that_fails_is_no_damage(command: str, tmp_path: Path) -> None:
    """Whether it fails before, in or behind the tar, and however late its exit status comes."""
    write_tar(tmp_path / "0.tar", sample("0", 0))
    address, lost = f"pipe:{command.format(tar=tmp_path / '0.tar')}", Lost()
    with pytest.raises(ZeroVLError, match=r"^pipe:.*: cannot be read \(its command ended with status [13]\); check"):
        list(read_tar(address, open_stream(address), SampleRules("web", caption_reader("", one_caption), 100), lost))
    assert not lost.counts


def test_a_command_ends_with_its_reader(tmp_path: Path) -> None:
    stream = open_stream("pipe:echo begun; exec sleep 1000")
    assert stream.read(6) == b"begun\n"
    stream.close()
    stream.close()


def test_a_tar_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("0", 0))
    with pytest.raises(ZeroVLError, match=r"urls: .*0\.tar is named twice"):
        expand(["0.tar", "*.tar"], tmp_path, "urls")


def test_blocks_are_read_in_any_sizes() -> None:
    data = bytes(range(23))
    stream, expected = _Blocks(iter([data[:7], data[7:8], data[8:20], data[20:]])), io.BytesIO(data)
    for size in (3, 0, 4, 2, 9, 1, 100, 1):
        assert stream.read(size) == expected.read(size)
    stream = _Blocks(iter([data[:7], data[7:]]))
    assert stream.read(5) + stream.read() + stream.read() == data
    stream.close()
    assert stream.read() == b""


def test_tars_on_s3_are_listed_and_read(moto_bucket: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("0", 0))
    for name in ("web/0.tar", "web/1.tar", "web/0_stats.json", "web/deeper/2.tar"):
        s3.client().upload_file(str(tmp_path / "0.tar"), moto_bucket, name)
    listed = [f"s3://{moto_bucket}/web/{number}.tar" for number in (0, 1)]
    assert expand([f"s3://{moto_bucket}/web/"], tmp_path, "urls") == listed
    assert expand([f"s3://{moto_bucket}/web/{{0..1}}.tar"], tmp_path, "urls") == listed
    stream, parts = open_stream(listed[0]), []
    while part := stream.read(700):
        parts.append(part)
    assert b"".join(parts) == (tmp_path / "0.tar").read_bytes()
    assert KeptTars(tmp_path / "cache", 1 << 30)(listed[1]).read() == b"".join(parts)
