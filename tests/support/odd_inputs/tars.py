"""Tars: two good samples, `0` and `1`, and something odd behind them."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.support import raw_sources
from tests.support.odd_inputs.kind import Kind, Outcome, refused

BLOCK = tarfile.BLOCKSIZE
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
Member = tuple[str | tarfile.TarInfo, bytes]


def whole(*more: Member) -> bytes:
    """The bytes of a tar with the good samples and further members."""
    members = [member for number in range(2) for member in raw_sources.sample(str(number), number)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in [*members, *more]:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if header.isreg():
                header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def sample(key: str = "2", **members: bytes | None) -> list[Member]:
    """A third sample with members in place of the usual ones; None leaves one out."""
    usual: dict[str, bytes | None] = {"jpg": raw_sources.jpeg(2), "txt": b"a caption"} | members
    return [(f"{key}.{ending}", data) for ending, data in usual.items() if data is not None]


def special(name: str, kind: bytes, linkname: str = "") -> Member:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, linkname
    return header, b""


def with_size(size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A third member whose header says another size, and another kind, with the right checksum."""
    data = bytearray(whole(("2.jpg", b"x")))
    start = data.index(b"2.jpg\0")
    data[start + 156 : start + 157] = kind
    data[start + 124 : start + 136] = size
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + BLOCK])
    return bytes(data)


def sparse() -> bytes:
    """A tar with a file of 1 MiB, of which the first bytes alone are stored, between good samples."""
    data = raw_sources.jpeg(2)
    stored = f"1\n0\n{len(data)}\n".encode().ljust(BLOCK, b"\0") + data
    header = tarfile.TarInfo("GNUSparseFile.0/2.jpg")
    header.size = len(stored)
    version = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    header.pax_headers = version | {"GNU.sparse.name": "2.jpg", "GNU.sparse.realsize": str(1 << 20)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(stored))
    return buffer.getvalue()[: end_of_members(buffer.getvalue())] + whole()


def end_of_members(data: bytes) -> int:
    return len(data.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK


def cut(data: bytes, before_end: int) -> bytes:
    """The tar without its end mark and some bytes before it."""
    return data[: end_of_members(data) - before_end]


def filtered(folder: Path) -> None:
    """A tar out of which a sample was taken, beside what img2dataset has counted before."""
    (folder / "0.tar").write_bytes(whole())
    (folder / "0_stats.json").write_text('{"count": 4, "successes": 3}')


def in_tar(what: str, data: Callable[[], bytes], outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        (folder / "0.tar").write_bytes(data())

    return Kind("tar", what, write, outcome)


THREE = whole(*sample())
DEEP = b"[" * 100_000

KINDS = [
    in_tar("no end mark", lambda: cut(THREE, 0), Outcome(3, 1, "truncated tar")),
    in_tar("one empty block at its end", lambda: cut(THREE, 0) + bytes(BLOCK), Outcome(3, 0)),
    in_tar(
        "samples behind its end mark",
        lambda: whole() + THREE,
        Outcome(2, 1, "damaged tar: it goes on behind its end mark"),
    ),
    in_tar(
        "cut in a picture",
        lambda: cut(THREE, 2 * BLOCK + 100),
        Outcome(2, 1, "truncated tar"),
    ),
    in_tar("cut in a header", lambda: cut(THREE, BLOCK + 100), Outcome(2, 1, "truncated tar")),
    in_tar("empty file", lambda: b"", Outcome(0, 1, "not a tar, or truncated")),
    in_tar("text", lambda: b"<html>404 Not Found</html>" * 100, Outcome(0, 1, "not a tar, or truncated")),
    in_tar("packed by gzip", lambda: gzip.compress(THREE), Outcome(0, 1, "not a tar, or truncated")),
    in_tar("zeros alone", lambda: bytes(10 * BLOCK), refused("has no samples")),
    in_tar(
        "rubbish behind the members",
        lambda: cut(THREE, 0) + b"rubbish." * 512,
        Outcome(3, 1, "damaged tar"),
    ),
    in_tar(
        "wrong checksum in a header",
        lambda: THREE.replace(b"2.jpg\0", b"3.jpg\0"),
        Outcome(2, 1, "damaged tar"),
    ),
    in_tar(
        "size beyond the file's end",
        lambda: with_size(b"77777777777\0"),
        Outcome(2, 1, "truncated tar"),
    ),
    in_tar("size below zero", lambda: with_size(b"\xff" * 12), Outcome(2, 1, "damaged tar")),
    in_tar("size that is no number", lambda: with_size(b"many bytes!\0"), Outcome(2, 1, "damaged tar")),
    in_tar(
        "size of 2**90",
        lambda: with_size(b"\x80\x04" + bytes(10)),
        Outcome(2, 1, "truncated tar"),
    ),
    in_tar(
        "symbolic link",
        lambda: whole(special("2.jpg", tarfile.SYMTYPE, "/etc/passwd")),
        Outcome(2, 1, "a link in a tar (to '/etc/passwd')"),
    ),
    in_tar(
        "hard link",
        lambda: whole(special("2.jpg", tarfile.LNKTYPE, "0.jpg")),
        Outcome(2, 1, "a link in a tar (to '0.jpg')"),
    ),
    in_tar("sparse file", sparse, Outcome(2, 1, "a sparse file in a tar")),
    in_tar("pointer of Git LFS", lambda: LFS_POINTER, Outcome(0, 1, "a pointer of Git LFS in place of the file")),
    in_tar("one number in two folders", lambda: whole(*sample("a/2"), *sample("b/2")), Outcome(4, 0)),
    in_tar(
        "device",
        lambda: whole(special("2.jpg", tarfile.CHRTYPE)),
        Outcome(2, 1, "neither a plain file nor a folder in a tar"),
    ),
    in_tar(
        "pipe",
        lambda: whole(special("2.jpg", tarfile.FIFOTYPE)),
        Outcome(2, 1, "neither a plain file nor a folder in a tar"),
    ),
    in_tar(
        "name that leaves the folder",
        lambda: whole(*sample("../2")),
        Outcome(2, 2, "file name '../2.jpg' leaves its folder"),
    ),
    in_tar("absolute name", lambda: whole(*sample("/tmp/2")), Outcome(2, 2, "absolute file name '/tmp/2.jpg'")),
    in_tar("name that is not UTF-8", lambda: whole(*sample("\udcff2")), Outcome(3, 0)),
    in_tar("name of 5,000 letters", lambda: whole(*sample("x" * 5000)), Outcome(3, 0)),
    in_tar("name that is an ending alone", lambda: whole((".jpg", b"x"), ("folder/.txt", b"x")), Outcome(2, 0)),
    in_tar(
        "extended header cut short",
        lambda: whole(special("2", tarfile.XHDTYPE)),
        Outcome(2, 1, "not a tar, or truncated"),
    ),
    in_tar(
        "2,000 extended headers in a row",
        lambda: whole(*[special("2", tarfile.XHDTYPE)] * 2000),
        Outcome(2, 1, "not a tar, or truncated"),
    ),
    in_tar(
        "extended header of 8 GiB",
        lambda: with_size(b"77777777777\0", tarfile.XHDTYPE),
        Outcome(2, 1, "extended header of 8589934592 bytes"),
    ),
    in_tar(
        "pair whose key begins with another's",
        lambda: whole(*sample("1.2"), ("1.seg.png", b"a mask")),
        Outcome(3, 0),
    ),
    in_tar(
        "two pictures with one key", lambda: whole(*sample(png=b"x")), Outcome(2, 1, "two pictures with the same key")
    ),
    in_tar(
        "picture without caption",
        lambda: whole(*sample(txt=None)),
        Outcome(2, 1, "no caption: neither .txt nor a caption in .json"),
    ),
    in_tar("caption without picture", lambda: whole(*sample(jpg=None)), Outcome(2, 1, "no picture with this key")),
    in_tar("caption that is not UTF-8", lambda: whole(*sample(txt=b"caf\xe9")), Outcome(2, 1, "its .txt is not UTF-8")),
    in_tar(
        "caption of 17 MiB",
        lambda: whole(*sample(txt=b"x" * (17 << 20))),
        Outcome(2, 1, ".txt of 17825792 bytes, more than 16777216"),
    ),
    in_tar(".json cut short", lambda: whole(*sample(json=b'{"key": "2')), Outcome(2, 1, "its .json is not valid JSON")),
    in_tar(".json that is a list", lambda: whole(*sample(json=b"[1]")), Outcome(2, 1, "its .json is not a mapping")),
    in_tar(
        ".json nested 100,000 deep", lambda: whole(*sample(json=DEEP)), Outcome(2, 1, "its .json is not valid JSON")
    ),
    in_tar(
        ".json with a number of 5,000 digits",
        lambda: whole(*sample(json=b'{"a": %s}' % (b"9" * 5000))),
        Outcome(2, 1, "its .json is not valid JSON"),
    ),
    in_tar(".json with an id that is not finite", lambda: whole(*sample(json=b'{"image_id": NaN}')), Outcome(3, 0)),
    in_tar(
        "members far apart", lambda: whole(*sample()[:1], *raw_sources.sample("3", 3), *sample()[1:]), Outcome(4, 0)
    ),
    in_tar(
        "the same sample twice",
        lambda: whole(*sample(), *sample("x"), *sample()),
        Outcome(4, 1, "image_id 2 was used before"),
    ),
    Kind(
        "tar",
        "fewer samples than its _stats.json states",
        filtered,
        Outcome(2, 1, "a whole tar has 2 of the 3 samples that 0_stats.json beside it states"),
    ),
]
