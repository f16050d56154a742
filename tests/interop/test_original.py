"""The original's checkpoint, imported, gives the original's embeddings; damaged ones are named."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.exchange import check_trains_on
from zerovl.errors import ZeroVLError
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.interop import original
from zerovl.model.encoder import Encoder


@pytest.fixture(scope="module")
def imported(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    out = tmp_path_factory.mktemp("imported") / "model"
    original.import_checkpoint(parity / "zerovl_tiny.pth", "test_vit", str(parity / "bert"), out)
    assert not [path for path in out.iterdir() if path.suffix in (".pth", ".pt", ".bin", ".pkl")]
    return Encoder.load(out)


def test_golden_embeddings_and_metrics(imported: Encoder, parity: Path) -> None:
    golden = np.load(parity / "embeddings.npz")
    with open(parity / "pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = imported.encode_image([parity / "images" / row["image"] for row in rows], batch_size=32)
    texts = imported.encode_text([row["caption"] for row in rows], batch_size=32)
    assert float((images - torch.from_numpy(golden["image_embeddings"])).abs().max()) < 1e-5
    assert float((texts - torch.from_numpy(golden["text_embeddings"])).abs().max()) < 1e-5
    ids = golden["image_id"]
    found = retrieval_metrics(images, texts, ids, ids).metrics
    expected = json.loads((parity / "metrics.json").read_text())
    for side, ours in (("I2T", "i2t"), ("T2I", "t2i")):
        for k in (1, 5, 10):
            assert found[f"{ours}_r{k}"] == pytest.approx(expected[f"zs_{side}-R@{k}"], rel=1e-6)
    assert found["rsum"] == pytest.approx(expected["zs_RSUM"], rel=1e-6)


def test_its_recipe_trains_on_from_it(imported: Encoder, parity: Path) -> None:
    out = imported.tokenizer.folder
    check_trains_on(out)
    with pytest.raises(ZeroVLError, match="is there already; name another folder"):
        original.import_checkpoint(parity / "zerovl_tiny.pth", "test_vit", str(parity / "bert"), out)


def test_tokens_are_the_golden_ones(imported: Encoder, parity: Path) -> None:
    golden = np.load(parity / "embeddings.npz")
    with open(parity / "pairs.csv", encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    input_ids, attention_mask = imported.tokenizer(captions)
    width = input_ids.shape[1]
    np.testing.assert_array_equal(input_ids, golden["input_ids"][:, :width])
    np.testing.assert_array_equal(attention_mask, golden["attention_mask"][:, :width])
    assert not golden["attention_mask"][:, width:].any()


def test_a_module_prefix_and_position_ids_are_accepted(parity: Path) -> None:
    weights = original.read_state_dict(parity / "zerovl_tiny.pth")
    older = {f"module.{key}": tensor for key, tensor in weights.items()}
    older["module.text_encoder.model.model.embeddings.position_ids"] = torch.arange(64)[None]
    assert original.rename(older, "file").keys() == original.rename(weights, "file").keys()


def test_a_constant_temperature_is_added() -> None:
    assert float(original.rename({}, "file")["temperature"]) == pytest.approx(0.02)


def test_unknown_and_missing_keys_are_errors(parity: Path, tmp_path: Path) -> None:
    weights = original.read_state_dict(parity / "zerovl_tiny.pth")
    with pytest.raises(ZeroVLError, match=r"unknown key 'head\.bias'"):
        original.rename({**weights, "head.bias": torch.zeros(1)}, "file")
    del weights["text_projection.linear.weight"]
    torch.save({"state_dict": weights}, tmp_path / "cut.pth")
    with pytest.raises(ZeroVLError, match=r"missing text_projection\.weight"):
        original.import_checkpoint(tmp_path / "cut.pth", "test_vit", str(parity / "bert"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Hostile()}, tmp_path / "evil.pth")
    with pytest.raises(ZeroVLError, match="nothing of it was run"):
        original.read_state_dict(tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_bytes(pickle.dumps({"a": 1})[:5])
    with pytest.raises(ZeroVLError, match=r"text\.pth"):
        original.read_state_dict(tmp_path / "text.pth")
    assert not (tmp_path / "owned").exists()
