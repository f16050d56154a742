"""Training that starts from a released model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny_project import copy_project, make_project, set_params, train
from tests.support.towers import model
from zerovl.data import tokenizer_training
from zerovl.errors import ZeroVLError
from zerovl.model import bundle
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import from_architecture
from zerovl.training.start import BundleStart
from zerovl.workspace import Workspace


def with_other_ids(workspace: Workspace, root: Path) -> Workspace:
    """The same project with a tokenizer of the same size and other ids, as other captions give."""
    other = copy_project(workspace, root)
    (root / "data").unlink()
    shutil.copytree(workspace.root / "data", root / "data")
    path = other.tokenizer / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    *_, one, another = sorted(vocabulary, key=vocabulary.get)
    vocabulary[one], vocabulary[another] = vocabulary[another], vocabulary[one]
    path.write_text(json.dumps(tokenizer))
    return other


def test_the_tokenizer_comes_with_the_model_to_start_from(tmp_path: Path) -> None:
    """Its word embeddings go by its ids; those of new captions would name other words."""
    first = make_project(tmp_path / "first")
    set_params(first, "train.epochs=0.5")
    train(first)
    second = with_other_ids(first, tmp_path / "second")
    set_params(second, "train.epochs=0.5", f"train.init_from={first.model}")
    said = train(second)
    assert "the tokenizer of prepare has no effect" in said
    trained, prepared = (
        json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        for folder in (second.model, second.tokenizer)
    )
    assert trained == json.loads((first.model / "tokenizer.json").read_text())["model"]["vocab"]
    assert trained != prepared


def test_weights_that_learned_with_another_pooling_are_refused(tmp_path: Path) -> None:
    dual = model()
    tokenizer_training.save(tokenizer_training.train(lambda: ["a red box"], 40), tmp_path / "tokenizer")
    bundle.save(dual, CaptionTokenizer(tmp_path / "tokenizer", 8), tmp_path / "model")
    BundleStart(tmp_path / "model").load_into(dual)
    other = from_architecture(replace(dual.architecture, pooling="mean"))
    with pytest.raises(ZeroVLError, match=r"pooling 'first', model\.text_tower\.pooling comes to 'mean'; set it to"):
        BundleStart(tmp_path / "model").load_into(other)
