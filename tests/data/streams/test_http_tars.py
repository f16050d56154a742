"""Tars behind http://, from a real server on this machine: whole, asked for once, and an error with the address."""

import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_sources import sample, write_tar
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.streams.addresses import expand, is_local, open_stream
from zerovl.data.streams.kept_tars import KeptTars
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar
from zerovl.errors import ZeroVLError

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="webdataset reads http:// by curl")
RULES = SampleRules("web", caption_reader("", one_caption), 100)


class Server(ThreadingHTTPServer):
    """Serves a folder: `/whole/NAME`, `/ranges/NAME` obeys Range, `/cut/NAME` breaks off in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        _, kind, name = self.path.split("/")
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if kind == "ranges" and begin:
            data, status = data[int(begin[1]) :], 206
        self.send_response(status)
        if kind == "ranges":
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # curl would ask a proxy that the environment names
    for tar in range(2):
        members = [member for number in range(3) for member in sample(f"{tar}{number}", number)]
        write_tar(tmp_path / "served" / f"{tar}.tar", members)
    with Server(tmp_path / "served") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def keys_of(address: str, lost: Lost) -> list[str]:
    return [read.key for read in read_tar(address, open_stream(address), RULES, lost)]


@pytest.mark.parametrize("kind", ["whole", "ranges"])
def test_tars_are_read_in_one_request_each(kind: str, server: Server, tmp_path: Path) -> None:
    tars = expand([f"{server.address}/{kind}/{{0..1}}.tar"], tmp_path, "urls")
    assert tars == [f"{server.address}/{kind}/{tar}.tar" for tar in range(2)]
    assert not is_local(tars[0])
    lost = Lost()
    assert [key for tar in tars for key in keys_of(tar, lost)] == [
        f"web-{tar}.tar-{tar}{number}" for tar in range(2) for number in range(3)
    ]
    assert not lost.counts
    assert server.asked == [f"/{kind}/0.tar", f"/{kind}/1.tar"]


def test_a_copy_that_is_kept_is_fetched_once(server: Server, tmp_path: Path) -> None:
    kept = KeptTars(tmp_path / "cache", 1 << 30)
    expected = (tmp_path / "served" / "0.tar").read_bytes()
    for _ in range(2):
        with kept(f"{server.address}/whole/0.tar") as stream:  # type: ignore[attr-defined]
            assert stream.read() == expected
    assert server.asked == ["/whole/0.tar"]


@pytest.mark.parametrize(("path", "status"), [("whole/no.tar", 22), ("cut/0.tar", 18)])
def test_a_tar_that_does_not_come_whole_is_no_damage(path: str, status: int, server: Server, tmp_path: Path) -> None:
    """Statuses of curl: 22 for an answer of 400 or more, 18 for a part of a file."""
    address, lost = f"{server.address}/{path}", Lost()
    said = rf"^{address}: cannot be read \(its command ended with status {status}\); check"
    with pytest.raises(ZeroVLError, match=said):
        keys_of(address, lost)
    assert not lost.counts
    for _ in range(2):  # half a copy is no copy
        with pytest.raises(
            ZeroVLError, match=rf"^{address}: cannot be read \(its command ended with status {status}\)"
        ):
            KeptTars(tmp_path / "cache", 1 << 30)(address)
        assert not list((tmp_path / "cache").iterdir())
