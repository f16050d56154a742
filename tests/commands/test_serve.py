"""`zerovl serve` up to the port: what it indexes, says and refuses. The page is tested in tests/serving."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import zerovl
from tests.support.fake_world import FakeEncoder
from zerovl import cli, log
from zerovl.commands import serve
from zerovl.errors import ZeroVLError
from zerovl.registry import cache, fetch
from zerovl.serving import server
from zerovl.serving.guard import App

LOCAL = serve.Address("127.0.0.1", 0)


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[App]:
    """The applications that would be served, by a model in a folder of its own."""
    applications: list[App] = []

    class Server:
        def run(self, sockets: list[socket.socket]) -> None:
            for taken in sockets:
                taken.close()
            raise KeyboardInterrupt  # as uvicorn after Ctrl-C

    def make_server(app: App) -> Server:
        applications.append(app)
        return Server()

    def end(status: int) -> None:
        raise Ended(status)

    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "bundle" / "MODEL_CARD.md").write_text("# A card\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server, "make_server", make_server)
    monkeypatch.setattr(serve.os, "_exit", end)
    monkeypatch.setattr(fetch, "resolve", lambda reference: tmp_path / "bundle")
    return applications


def test_a_folder_is_indexed_in_the_cache_once(
    encoder: FakeEncoder, served: list[App], picture_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup()
    for _ in range(2):
        with pytest.raises(Ended):
            serve.run("model", picture_folder, None, LOCAL)
    assert encoder.encoded_pictures == 3
    printed = capsys.readouterr()
    first, ready, second, _ = printed.out.splitlines()
    assert first.endswith(": 3 new, 0 as before, 0 gone")
    assert second.endswith(": 0 new, 3 as before, 0 gone")
    entry = Path(first.partition(":")[0]).parent
    assert entry.parent.parts[-2:] == ("cache", "indexes")
    assert re.fullmatch(r"3 pictures with model on http://127\.0\.0\.1:\d+ \(Ctrl-C ends it\)", ready)
    assert "1 input left out: 1 not a picture" in printed.err
    client = TestClient(served[0], base_url="http://127.0.0.1")  # type: ignore[arg-type]
    assert client.get("/api/about").json()["pictures"] == 3
    assert client.get("/card").text == "# A card\n"
    cache._make_room(entry.parent.parent, entry.parent, 0)  # a full cache removes it, and what is open goes on
    assert list(entry.iterdir()) == []
    assert len(client.get("/api/search", params={"words": "colour 1 2 3"}).json()["results"]) == 3


def test_a_host_that_others_reach_is_warned_of(
    encoder: FakeEncoder, served: list[App], picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup()
    words = ["index", "model", "--images", str(picture_folder), "--out", str(tmp_path / "index")]
    assert cli.main(words) == 0
    with pytest.raises(Ended):
        cli.main(["serve", "model", "--index", str(tmp_path / "index"), "--host", "0.0.0.0", "--port", "0"])
    assert "--host 0.0.0.0: whoever reaches this machine can see the pictures" in capsys.readouterr().err
    client = TestClient(served[0], base_url=f"http://{socket.gethostname()}")  # type: ignore[arg-type]
    assert client.get("/api/about").status_code == 200


def test_what_is_wrong_is_told(
    encoder: FakeEncoder, served: list[App], picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.open_port("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(ZeroVLError, match=rf"127.0.0.1:{port}: Address already in use; name another --port, or 0"):
            serve.run("model", picture_folder, None, serve.Address("127.0.0.1", port))
    for port in (-1, 70000):
        with pytest.raises(ZeroVLError, match="name another --port"):
            serve.run("model", picture_folder, None, serve.Address("127.0.0.1", port))
    with pytest.raises(ZeroVLError, match="none: no such folder; make an index with `zerovl index`"):
        serve.run("model", None, tmp_path / "none", LOCAL)
    with pytest.raises(ZeroVLError, match="none: no such folder; give the one with the pictures"):
        serve.run("model", tmp_path / "none", None, LOCAL)
    cli.main(["index", "model", "--images", str(picture_folder), "--out", str(tmp_path / "index")])
    monkeypatch.setattr(zerovl, "load", lambda reference: FakeEncoder(seed=1))
    with pytest.raises(ZeroVLError, match="made with model"):
        serve.run("model", None, tmp_path / "index", LOCAL)
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(ZeroVLError, match=r"fastapi and uvicorn not installed; run `pip install 'zerovl\[serve\]'`"):
        serve.run("model", picture_folder, None, LOCAL)
    assert served == []
