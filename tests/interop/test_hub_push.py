"""`zerovl push` against a server that speaks the hub's calls, and what is refused before one is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.support.hub_server import TOKEN, running_hub
from tests.support.paths import ROOT
from zerovl.errors import ZeroVLError
from zerovl.interop import hub_push
from zerovl.interop.hub_card import CardFacts, render


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as `zerovl export` writes it: a card, small files, weights, a file in a folder."""
    folder = tmp_path / "exported"
    (folder / "image_tower").mkdir(parents=True)
    (folder / "README.md").write_text(
        render(CardFacts("shop@3", "apache-2.0"), "open_clip", "import open_clip", "Checked.")
    )
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "image_tower" / "config.json").write_text('{"architecture": "vit"}')
    return folder


@pytest.fixture(autouse=True)
def _reaches_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, as whoever has a token, at an address where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy would answer in its place
        monkeypatch.setenv(name, "127.0.0.1")


def run_push(folder: Path, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the library reads its variables when it is imported."""
    given = {
        "HF_ENDPOINT": url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    words = [sys.executable, "-m", "zerovl.cli", "push", str(folder), "team/model", "--message", "release 3"]
    return subprocess.run(words, cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False)


def test_every_file_arrives_in_a_private_repository(exported: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        done = run_push(exported, hub.url, tmp_path / "home")
        assert done.returncode == 0, done.stderr
        assert f"{hub.url}/team/model/commit/cccc" in done.stdout
        (created,) = hub.created
        assert (created["name"], created["organization"]) == ("model", "team")
        # Which of the two says it differs between the versions of huggingface_hub that pyproject.toml promises.
        assert created.get("visibility") == "private" or created.get("private") is True
        assert set(hub.cards) == {(exported / "README.md").read_text()}
        there = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*") if path.is_file()}
        assert hub.files == {name: path.read_bytes() for name, path in there.items()}
        assert list(hub.large.values()) == [(exported / "open_clip_model.safetensors").read_bytes()]
        assert hub.message == "release 3"

        hub.refusal = 403
        refused = run_push(exported, hub.url, tmp_path / "home")
    assert refused.returncode != 0
    assert f"{hub.url}: team/model was not pushed" in refused.stderr
    assert "when that is fixed, the same command sends what is missing" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_hub_that_cannot_be_reached_is_named(exported: Path) -> None:
    with pytest.raises(ZeroVLError, match=r"^http://127\.0\.0\.1:9: team/model was not pushed \(.*[Rr]efused"):
        hub_push.push(exported, "team/model", "m", private=True)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    for card in (None, "# Mine", "---\ntags: [clip]\n---\n"):
        if card is not None:
            (tmp_path / "README.md").write_text(card)
        with pytest.raises(ZeroVLError, match=r"no README\.md with the metadata that `zerovl export` writes"):
            hub_push.push(tmp_path, "team/model", "m", private=True)


@pytest.mark.parametrize("name", ["model", "team/model/more", "team/mo del", "team/-model"])
def test_what_is_no_name_of_a_repository_is_refused(exported: Path, name: str) -> None:
    with pytest.raises(ZeroVLError, match=f"{name}: not a repository of a hub; give ORGANISATION/NAME"):
        hub_push.push(exported, name, "m", private=True)


def test_without_a_token_or_offline_no_hub_is_asked(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "get_token", lambda: None)
    with pytest.raises(ZeroVLError, match="no token of the hub; `hf auth login`"):
        hub_push.push(exported, "team/model", "m", private=True)

    def closed() -> str:
        raise PermissionError("token: Permission denied")

    monkeypatch.setattr(hub_push, "get_token", closed)
    with pytest.raises(ZeroVLError, match=r"token of the hub cannot be had \(token: Permission denied\)"):
        hub_push.push(exported, "team/model", "m", private=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZeroVLError, match="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"):
        hub_push.push(exported, "team/model", "m", private=True)
