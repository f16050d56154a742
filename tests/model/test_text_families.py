"""Text towers that people have: each family with its kind of tokenizer, from a folder to a step and a bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextModel,
)

import zerovl
from tests.support.text_towers import (
    CAPTIONS,
    FAMILIES,
    SIZES,
    SPECIAL_IDS,
    TOKENS,
    VOCABULARY,
    config_of,
    make_folder,
    settings,
    word_piece,
)
from tests.support.towers import CPU, RANKS, MicroInputs, decoupled_step, gradients, plain_step
from zerovl.data.batches.captions import cut, mask_tokens
from zerovl.data.batches.randomness import RowRandom
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.model import bundle
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import check_padding
from zerovl.model.towers import build
from zerovl.objective.mixup import Mix


@pytest.fixture(scope="module", params=FAMILIES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, make_folder(request.param, tmp_path_factory.mktemp(request.param) / "tower")


def test_a_family_embeds_as_its_own_library_does(published: tuple[str, Path]) -> None:
    """The reference: the library's model for one caption alone, with no padding but SigLIP's own."""
    family, folder = published
    tokenizer = CaptionTokenizer(folder, TOKENS)
    dual = build(settings(folder), tokenizer.vocab_size, seed=1).eval()
    with torch.no_grad():
        together = dual.text_hidden(*map(torch.from_numpy, tokenizer(CAPTIONS)))
        for caption, vector in zip(CAPTIONS, together, strict=True):
            ids = torch.from_numpy(tokenizer([caption])[0])
            if family == "siglip_text_model":
                model = SiglipTextModel.from_pretrained(folder)
                row = torch.cat([ids, torch.full((1, 16 - ids.shape[1]), 1)], 1)
                expected = model(input_ids=row).last_hidden_state[0, -1]
            elif family == "clip_text_model":
                expected = CLIPTextModel.from_pretrained(folder)(input_ids=ids).last_hidden_state[0, -1]
            else:
                expected = AutoModel.from_pretrained(folder)(input_ids=ids).last_hidden_state[0, 0]
            torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_family_learns_alike_in_both_steps_and_comes_back_from_a_bundle(
    published: tuple[str, Path], tmp_path: Path
) -> None:
    family, folder = published
    tokenizer = CaptionTokenizer(folder, TOKENS)
    ids, mask = (torch.from_numpy(array) for array in tokenizer(CAPTIONS))
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    parts = [MicroInputs(images[i : i + 2], ids[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    first, second = (build(settings(folder), tokenizer.vocab_size, seed=1).train() for _ in range(2))
    for dual, make in ((first, plain_step), (second, decoupled_step)):
        make(dual, RANKS, Precision("float32", CPU), 3)(parts, Mix("text", 0.4), 0)
    found = gradients(first)
    for name, gradient in gradients(second).items():
        torch.testing.assert_close(gradient, found[name], rtol=1e-3, atol=1e-6)
    learning = {name for name, parameter in first.named_parameters() if parameter.requires_grad}
    assert learning == found.keys(), "no weight is left that never learns"

    bundle.save(first, tokenizer, tmp_path / "model")
    again = zerovl.load(str(tmp_path / "model"), device="cpu")
    assert again.tokenizer.special == tokenizer.special
    with torch.no_grad():
        expected = first.eval().encode_text(ids, mask)
    torch.testing.assert_close(again.encode_text(CAPTIONS), expected, rtol=1e-4, atol=1e-5)
    assert family == again.model.architecture.text_config["model_type"]


def test_special_tokens_go_by_the_tokenizer_s_own_config(published: tuple[str, Path]) -> None:
    family, folder = published
    tokenizer = CaptionTokenizer(folder, TOKENS)
    special, token = tokenizer.special, tokenizer._tokenizer.token_to_id
    if family in ("bert", "distilbert"):
        assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
        assert special.ordinary == range(5, special.vocab_size)
    elif family == "clip_text_model":
        assert special.pad == special.sep == token("<|endoftext|>")
        assert special.mask is None
        assert special.ordinary == range(special.vocab_size - 2)
    elif family == "siglip_text_model":
        assert (special.pad, special.cls, special.sep, special.mask, special.unk) == (1, None, 1, None, 0)
    else:
        assert (special.cls, special.pad, special.sep, special.unk) == (0, 1, 2, 3)
        assert special.mask == token("<mask>")
        assert special.ordinary == range(4, special.mask)


@pytest.mark.parametrize("most", [3, 5, TOKENS])
def test_to_cut_the_whole_is_what_the_tokenizer_does(published: tuple[str, Path], most: int) -> None:
    tokenizer = CaptionTokenizer(published[1], most)
    captions = [*CAPTIONS, " ".join(CAPTIONS)]
    ids, mask = cut(*tokenizer.whole(captions), tokenizer.special, most)
    expected_ids, expected_mask = tokenizer(captions)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(mask, expected_mask)
    assert tokenizer.whole(captions)[0].shape[1] > ids.shape[1] == most


def test_ids_are_those_of_the_library_s_slower_way(published: tuple[str, Path]) -> None:
    tokenizer = CaptionTokenizer(published[1], TOKENS)
    captions = ["", *CAPTIONS, " ".join(CAPTIONS), "a\u0301 \u732b\U0001f408  tabs\tand\nlines, never-seen words"]
    encodings = Tokenizer.from_str(tokenizer._tokenizer.to_str()).encode_batch(captions)
    ids, mask = tokenizer(captions)
    assert ids.tolist() == [encoding.ids for encoding in encodings]
    assert mask.tolist() == [encoding.attention_mask for encoding in encodings]


def test_captions_are_augmented_with_any_tokenizer(published: tuple[str, Path]) -> None:
    """The ends stay, the mask is the tokenizer's own, and where there is none the token goes."""
    _, folder = published
    tokenizer = CaptionTokenizer(folder, TOKENS)
    special = tokenizer.special
    ids, mask = tokenizer([CAPTIONS[2]] * 300)
    new_ids, new_mask = mask_tokens(ids, mask, special, 0.6, RowRandom(np.arange(300, dtype=np.uint64)))
    lengths = new_mask.sum(1)
    assert (new_ids[np.arange(300), lengths - 1] == special.sep).all()
    assert (new_mask == (np.arange(ids.shape[1]) < lengths[:, None])).all()
    assert (new_ids[new_mask == 0] == special.pad).all()
    words = new_ids[(new_mask == 1) & ~np.isin(new_ids, special.never_chosen)]
    if special.mask is None:
        assert lengths.mean() < 0.6 * mask[0].sum()
    else:
        assert 0.1 < (words == special.mask).mean() < 0.6
    others = words[(words != special.mask) & ~np.isin(words, ids[0])]
    assert len(others)
    assert np.isin(others, np.array(special.ordinary)).all()


def test_the_text_part_of_a_whole_clip_or_siglip_is_taken(tmp_path: Path) -> None:
    text = {**SIZES, "vocab_size": VOCABULARY, **SPECIAL_IDS, "pad_token_id": 1, "max_position_embeddings": 16}
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    for family, config, whole in (("clip", CLIPConfig, CLIPModel), ("siglip", SiglipConfig, SiglipModel)):
        folder = tmp_path / family
        folder.mkdir()
        torch.manual_seed(3)
        model = whole(config(text_config=text, vision_config=vision, projection_dim=16))
        model.save_pretrained(folder)
        FAMILIES[f"{family}_text_model"][0](folder)
        tokenizer = CaptionTokenizer(folder, TOKENS)
        dual = build(settings(folder), tokenizer.vocab_size, seed=1)
        assert dual.architecture.text_config["model_type"] == f"{family}_text_model"
        theirs = model.text_model.state_dict()
        for name, tensor in dual.text_tower.state_dict().items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_captions_longer_than_the_tower_reads_are_refused(published: tuple[str, Path]) -> None:
    family, folder = published
    places = 16 if family == "siglip_text_model" else TOKENS
    build(settings(folder, max_tokens=places), 60, seed=1)
    with pytest.raises(ZeroVLError, match=rf"max_tokens {places + 1} is more than .*lower it to {places}$"):
        build(settings(folder, max_tokens=places + 1), 60, seed=1)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    folder = make_folder("siglip_text_model", tmp_path / "siglip")
    tower = {"name": str(folder), "config": {}, "pooling": "mean"}
    with pytest.raises(ZeroVLError, match=r"pooling: mean does not fit SigLIP's text tower.*set it to auto"):
        build(settings(folder, text_tower=tower), 60, seed=1)
    with pytest.raises(ZeroVLError, match=r"the tokenizer pads with token 0, .* siglip_text_model knows padding by 1;"):
        check_padding(config_of("siglip_text_model"), 0)
    for family in FAMILIES:
        check_padding(config_of(family), 1 if family.startswith(("ca", "mp", "ro", "xl", "si")) else 0)
    (tmp_path / "t5").mkdir()
    AutoConfig.for_model("t5").save_pretrained(tmp_path / "t5")
    with pytest.raises(ZeroVLError, match="t5 is of the family t5, which is not an encoder of text; name one"):
        build(settings(tmp_path / "t5"), 60, seed=1)
    word_piece(tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    said["added_tokens"] = []
    said["model"]["vocab"]["padding"] = said["model"]["vocab"].pop("[PAD]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(ZeroVLError, match=r"no token for padding; name one as pad_token in tokenizer_config\.json"):
        CaptionTokenizer(tmp_path, TOKENS)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "padding"}))
    assert CaptionTokenizer(tmp_path, TOKENS).special.pad == 0
