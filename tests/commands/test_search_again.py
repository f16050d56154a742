"""A second search by words reads the half of the model that words need, and notices an edit all the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from zerovl import bundle_digests
from zerovl.bundle_files import WEIGHTS
from zerovl.commands.search import load_query_encoder
from zerovl.errors import ZeroVLError
from zerovl.model import query_encoder
from zerovl.model.encoder import Encoder
from zerovl.registry import known_models

BUNDLE = ROOT / "tests" / "assets" / "bundle_zerovl_1"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with digests, which counts as settled at once."""
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_models, "_SETTLED_SECONDS", 0.0)
    folder = tmp_path / "model"
    shutil.copytree(BUNDLE, folder)
    names = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    bundle_digests.write(folder, {name: folder / name for name in names})
    return folder


def edit(path: Path, place: int) -> None:
    """Change a byte where it lies; size and time of the file stay as they were."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def forbid_whole_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the whole model is read")

    monkeypatch.setattr(query_encoder, "model_digest", refuse)
    monkeypatch.setattr(bundle_digests, "check", refuse)


def test_the_second_search_reads_half_and_knows_the_whole(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_query_encoder(str(model))
    forbid_whole_reads(monkeypatch)
    second = load_query_encoder(str(model))
    assert second.digest == first.digest == Encoder.load(model, "cpu").digest
    assert (second.encode_text(["a red box"]) == first.encode_text(["a red box"])).all()


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, "tokenizer.json"])
def test_an_edit_in_place_is_named(model: Path, file: str) -> None:
    load_query_encoder(str(model))
    edit(model / file, (model / file).stat().st_size - 3)
    with pytest.raises(ZeroVLError, match=f"edited or damaged since the model was written:\n  {file}"):
        load_query_encoder(str(model))


def test_without_digests_an_edit_makes_another_model(model: Path) -> None:
    (model / bundle_digests.FILE).unlink()
    before = load_query_encoder(str(model)).digest
    edit(model / WEIGHTS, (model / WEIGHTS).stat().st_size - 3)
    after = load_query_encoder(str(model)).digest
    assert after != before
    assert load_query_encoder(str(model)).digest == after == Encoder.load(model, "cpu").digest


@pytest.mark.parametrize("what", [bundle_digests.FILE, "special_tokens_map.json"])
def test_a_file_that_comes_or_goes_counts(model: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_query_encoder(str(model))
    path = model / what
    path.unlink() if path.exists() else path.write_text("{}")
    forbid_whole_reads(monkeypatch)
    with pytest.raises(AssertionError, match="the whole model is read"):
        load_query_encoder(str(model))


def test_a_model_that_was_just_changed_is_read_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second edit within the step of the file system's clock could not be told from the first."""
    monkeypatch.setattr(known_models, "_SETTLED_SECONDS", 3600.0)
    load_query_encoder(str(model))
    assert known_models.digest(model, known_models.stamp(model)) is None


def test_another_version_reads_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_query_encoder(str(model))
    assert known_models.digest(model, known_models.stamp(model))
    monkeypatch.setattr(known_models, "version", lambda name: "0.1")
    assert known_models.digest(model, known_models.stamp(model)) is None


def test_a_cache_that_cannot_be_written_or_read_costs_a_whole_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model.parent / "file").write_text("")
    monkeypatch.setenv("ZEROVL_CACHE", str(model.parent / "file"))
    assert load_query_encoder(str(model)).digest == load_query_encoder(str(model)).digest
