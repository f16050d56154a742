"""What leaves this machine, a bundle or an export, does not say in which folders it was made."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

import zerovl
from tests.support.exchange import make_bundle
from zerovl.interop.base import synthetic_sample
from zerovl.interop.export import FORMATS, export
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.import_folder import import_folder
from zerovl.model.encoder import Encoder

CODE = str(Path(zerovl.__file__).parent)


def files_with(words: str, folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


def of_before(encoder: Encoder) -> Encoder:
    """The model as bundles had it that name the folder of their text tower."""
    architecture = encoder.model.architecture
    config = architecture.text_config | {"_name_or_path": "/home/ada/towers/bert"}
    encoder.model.architecture = replace(architecture, text_config=config)
    return encoder


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_names_no_folder_of_its_machine(form: str, tmp_path: Path) -> None:
    if not find_spec(FORMATS[form].library):
        pytest.skip(f"{FORMATS[form].library} is not installed")
    encoder = make_bundle(tmp_path, "bert", "first")
    assert files_with(str(tmp_path), tmp_path / "bundle") == []
    before = of_before(encoder)
    export(before, CardFacts("tiny"), form, synthetic_sample(), tmp_path / "out")
    for folder in (str(tmp_path), CODE, "site-packages", "/home/ada"):
        assert files_with(folder, tmp_path / "out") == []
    assert before.model.architecture.text_config["_name_or_path"] == "/home/ada/towers/bert"  # an index of it stays one


def test_an_import_is_the_exported_model_without_its_folder(tmp_path: Path) -> None:
    encoder = make_bundle(tmp_path, "bert", "first")
    digest = encoder.digest
    export(of_before(encoder), CardFacts("tiny"), "hugging-face", synthetic_sample(), tmp_path / "out")
    import_folder(tmp_path / "out", tmp_path / "back")
    assert Encoder.load(tmp_path / "back", "cpu").digest == digest
