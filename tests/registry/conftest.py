"""Real S3 servers, one of each kind a session, and small bundles to publish.

`moto_server` honours conditional PUT and checks no signatures; `rclone serve s3` checks signatures
and ignores conditional PUT.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent
KEYS = ("tester", "tester-secret")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # refused, but by the server
    except OSError:
        return False


def _serve(command: Callable[[int], list[str]]) -> Iterator[str]:
    """Start a server on a free port, again where someone else took the port first; yields its address."""
    for _ in range(5):
        port = free_port()
        server = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            if server.poll() is not None or _answers(url):
                break
            time.sleep(0.1)
        if server.poll() is None:
            break
    else:
        pytest.fail(f"the server does not start: {command(0)}")
    try:
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    yield from _serve(lambda port: [str(SCRIPTS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)])


@pytest.fixture(scope="session")
def rclone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rclone")


@pytest.fixture(scope="session")
def rclone_url(rclone_folder: Path) -> Iterator[str]:
    def command(port: int) -> list[str]:
        address = f"127.0.0.1:{port}"
        return [
            *(str(SCRIPTS / "rclone"), "serve", "s3", "--auth-key", ",".join(KEYS), "--addr", address),
            *("--config", str(rclone_folder.parent / "rclone.conf"), str(rclone_folder)),
        ]

    yield from _serve(command)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine's user, and a cache of the test's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "ZEROVL_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ZEROVL_ALLOW_UNCONDITIONAL_PUT", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZEROVL_RUN", "test-run")


@pytest.fixture
def moto_bucket(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server that honours conditional PUT."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    bucket = f"models-{uuid.uuid4().hex}"
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def rclone_bucket(rclone_url: str, rclone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server that ignores conditional PUT."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", rclone_url)
    bucket = f"models-{uuid.uuid4().hex}"
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., dict[str, Path | bytes]]:
    """Files of a release; other `content` is another model."""

    def make(content: str = "a", size: int = 5000) -> dict[str, Path | bytes]:
        folder = tmp_path / f"bundle-{content}-{size}"
        folder.mkdir(exist_ok=True)
        weights = folder / "model.safetensors"
        weights.write_bytes((content.encode() * size)[:size])
        (folder / "config.json").write_text(json.dumps({"embed_dim": 8}))
        (folder / "tokenizer.json").write_text("{}")
        return {
            **{path.name: path for path in folder.iterdir()},
            "metrics.json": json.dumps({"overall": {"rsum": 100.0}}).encode(),
            "provenance.json": b"{}",
            "MODEL_CARD.md": b"# card",
        }

    return make
