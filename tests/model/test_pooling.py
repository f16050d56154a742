"""One vector a caption: each pooling against a loop, and which one a text tower asks for."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

import zerovl
from tests.support.towers import CPU, RANKS, TEXT, batch, decoupled_step, gradients, plain_step
from zerovl.data import tokenizer_training
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model import bundle, pooling
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.towers import build
from zerovl.objective.mixup import Mix
from zerovl.params import ModelParams, TextTowerParams

CAPTIONS = ["a red circle", "two blue stars on the left", "a small green square with stripes"]


def one_by_one(name: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The slow reference."""
    rows = []
    for row, mask in zip(hidden, attention_mask, strict=True):
        tokens = row[: int(mask.sum())]
        rows.append({"first": tokens[0], "mean": tokens.sum(0) / len(tokens), "last": tokens[-1]}[name])
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["first", "mean", "last"])
def test_a_pooling_is_its_loop_over_the_tokens_and_padding_changes_nothing(name: str) -> None:
    hidden = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[1] * length + [0] * (7 - length) for length in (7, 1, 3, 5)])
    pooled = pooling.by_name(name)(hidden, mask)
    torch.testing.assert_close(pooled, one_by_one(name, hidden, mask))
    garbage = torch.where(mask.bool().unsqueeze(-1), hidden, 1e6)
    torch.testing.assert_close(pooling.by_name(name)(garbage, mask), pooled)


def test_the_mean_of_half_precision_is_taken_in_float32() -> None:
    hidden = torch.full((1, 4096, 2), 1.01, dtype=torch.bfloat16)
    pooled = pooling.mean(hidden, torch.ones(1, 4096, dtype=torch.long))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, hidden[:, 0].float())


def family(model_type: str) -> str:
    return pooling.resolve(TextTowerParams(name="team/tower", config={}), AutoConfig.for_model(model_type))


def test_auto_is_the_family_s_own_and_a_name_is_taken_as_it_is() -> None:
    assert [family(name) for name in ("bert", "roberta", "distilbert", "mpnet")] == ["first"] * 4
    assert [family(name) for name in ("clip_text_model", "siglip_text_model")] == ["last", "end"]
    assert pooling.resolve(TextTowerParams(pooling="last"), AutoConfig.for_model("bert")) == "last"


def test_auto_is_the_mean_for_a_tower_from_scratch() -> None:
    assert pooling.resolve(TextTowerParams(), AutoConfig.for_model("bert")) == "mean"


def sentence_model(folder: Path, *modes: str) -> TextTowerParams:
    """What sentence-transformers writes beside a model; `modes` are set to true."""
    (folder / "1_Pooling").mkdir(parents=True)
    types = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    paths = ["", "1_Pooling"]
    listed = [{"idx": i, "name": str(i), "path": paths[i], "type": types[i]} for i in range(2)]
    (folder / "modules.json").write_text(json.dumps(listed))
    known = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    values = {f"pooling_mode_{mode}": mode in modes for mode in known}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16} | values))
    return TextTowerParams(name=str(folder), config={})


def test_auto_is_what_a_folder_of_sentence_transformers_says(tmp_path: Path) -> None:
    bert = AutoConfig.for_model("bert")
    for mode, name in (("cls_token", "first"), ("mean_tokens", "mean"), ("lasttoken", "last")):
        assert pooling.resolve(sentence_model(tmp_path / mode, mode), bert) == name
    for modes in (("max_tokens",), ("cls_token", "mean_tokens"), ()):
        tower = sentence_model(tmp_path / ("both" + "".join(modes)), *modes)
        with pytest.raises(ZeroVLError, match=r"1_Pooling/config\.json: .*set model\.text_tower\.pooling to one of"):
            pooling.resolve(tower, bert)
        assert pooling.resolve(tower.model_copy(update={"pooling": "mean"}), bert) == "mean"
    (tmp_path / "lost" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "lost" / "modules.json").write_text("[]")
    with pytest.raises(ZeroVLError, match=r"modules\.json: no Pooling"):
        pooling.resolve(TextTowerParams(name=str(tmp_path / "lost"), config={}), bert)


def small(name: str, **text: object) -> DualEncoder:
    config = {key: value for key, value in TEXT.items() if key not in ("model_type", "vocab_size")}
    options = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}
    values = {
        "image_tower": {"name": "vit_tiny_patch16_224", "options": options},
        "text_tower": {"config": {**config, **text}, "pooling": name},
        "embed_dim": 8,
        "image_size": 32,
        "resize_size": 32,
        "max_tokens": 8,
    }
    return build(ModelParams.model_validate(values), 40, seed=1)


@pytest.mark.parametrize("name", ["mean", "last"])
def test_the_decoupled_step_has_the_gradients_of_the_plain_one(name: str) -> None:
    first, second = small(name).train(), small(name).train()
    parts = batch()
    for part in parts:
        part.attention_mask[::2, 5:] = 0
    for dual, make in ((first, plain_step), (second, decoupled_step)):
        make(dual, RANKS, Precision("float32", CPU), 3)(parts, Mix("text", 0.4), 0)
    for key, gradient in gradients(first).items():
        torch.testing.assert_close(gradients(second)[key], gradient, rtol=1e-4, atol=1e-6)


def test_a_bundle_keeps_its_pooling_and_one_of_token_0_is_written_as_before(tmp_path: Path) -> None:
    tokenizer_training.save(tokenizer_training.train(lambda: CAPTIONS, 40), tmp_path / "tokenizer")
    tokenizer = CaptionTokenizer(tmp_path / "tokenizer", 8)
    embedded = {}
    for name in ("mean", "first"):
        bundle.save(small(name, hidden_dropout_prob=0.0), tokenizer, tmp_path / name)
        embedded[name] = zerovl.load(str(tmp_path / name), device="cpu").encode_text(CAPTIONS)
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["pooling"] == "mean"
    assert "pooling" not in json.loads((tmp_path / "first" / "config.json").read_text())
    assert not torch.allclose(embedded["mean"], embedded["first"], atol=1e-3)


def test_a_pooling_of_a_newer_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroVLError, match="pooling 'attention' of the text tower is not known; expected one of first"):
        pooling.by_name("attention")
