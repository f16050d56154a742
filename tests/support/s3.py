"""Real S3 servers for tests, one of each kind a session, started when the first test asks for it.

`moto_server` honours conditional PUT and checks no signatures; `rclone serve s3` checks signatures
and ignores conditional PUT. The fixtures are there for all tests (tests/conftest.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

SCRIPTS = Path(sys.executable).parent
KEYS = ("tester", "tester-secret")


def variables(url: str) -> dict[str, str]:
    """What the environment needs for a program to use a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }


def client() -> Any:
    """A client of the tests' own, of the server that the environment names."""
    import boto3

    return boto3.session.Session().client("s3", region_name="us-east-1")


def new_bucket() -> str:
    """Make a bucket on the server that the environment names."""
    bucket = f"models-{uuid.uuid4().hex}"
    client().create_bucket(Bucket=bucket)
    return bucket


@contextmanager
def moto(port: int = 0) -> Iterator[str]:
    """Serve by moto until the block ends; gives the address. `port` 0 takes a free one."""
    with _served(moto_command, port) as url:
        yield url


def moto_command(port: int) -> list[str]:
    """What serves by moto at a port."""
    return [sys.executable, str(Path(__file__).with_name("moto_server.py")), str(port)]


@contextmanager
def rclone(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder by rclone until the block ends; its sub-folders are the buckets. `port` 0 takes a free one."""

    def command(at: int) -> list[str]:
        return [
            *(str(SCRIPTS / "rclone"), "serve", "s3", "--auth-key", ",".join(KEYS), "--addr", f"127.0.0.1:{at}"),
            *("--config", str(folder.parent / "rclone.conf"), str(folder)),
        ]

    with _served(command, port) as url:
        yield url


@contextmanager
def _served(command: Callable[[int], list[str]], wanted: int = 0) -> Iterator[str]:
    """Start a server, on another port where someone took the first; it is killed when the block ends."""
    for _ in range(5):
        port = wanted or free_port()
        server = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while server.poll() is None and not _answers(url) and time.monotonic() < deadline:
            time.sleep(0.05)
        if server.poll() is None:
            break
    else:
        pytest.fail(f"the server does not start: {command(wanted)}")
    try:
        yield url
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # refused, but by the server
    except OSError:
        return False


@pytest.fixture
def clean_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS settings of the machine's user, and the keys of the servers here."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables("").items():
        if value:
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """A server that honours conditional PUT."""
    with moto() as url:
        yield url


@pytest.fixture(scope="session")
def rclone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `rclone_url` serves."""
    return tmp_path_factory.mktemp("rclone")


@pytest.fixture(scope="session")
def rclone_url(rclone_folder: Path) -> Iterator[str]:
    """A server that checks signatures and ignores conditional PUT."""
    with rclone(rclone_folder) as url:
        yield url


@pytest.fixture
def moto_bucket(clean_aws: None, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server that honours conditional PUT, which the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return new_bucket()


@pytest.fixture
def rclone_bucket(clean_aws: None, rclone_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server that ignores conditional PUT, which the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", rclone_url)
    return new_bucket()
