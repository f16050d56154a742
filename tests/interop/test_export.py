"""An export is whole or absent: refusals, differences and what it hands along."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, ModelCard
from PIL import Image
from torch import Tensor

from tests.support.exchange import make_bundle, pictures_of_all_modes
from zerovl.errors import ZeroVLError
from zerovl.evaluation.hub_results import ZERO_SHOT, hub_results, pipeline_tag, results_table
from zerovl.files import write_json
from zerovl.interop import export as exports
from zerovl.interop.base import Sample, largest_difference, require, synthetic_sample
from zerovl.interop.hub_card import CardFacts, check_licence
from zerovl.interop.open_clip_export import write_transform
from zerovl.interop.standalone.zerovl_transform import Transform
from zerovl.model.encoder import Encoder
from zerovl.model.export_forms import reasons_against
from zerovl.model.preprocess import EvaluationTransform
from zerovl.picture_looks import to_rgb

SCORES = {
    "mean": {"rsum": 206.7},
    "overall": {"rsum": 100.0},
    "sources": {"web": {"rsum": 120.0}, "photos": {"rsum": 293.4, "rsum_low": 280.0, "i2t_r1": 40.12}},
    "unseen": ["web"],
    "evaluators": {"pets": {"overall": {"top1": 63.2, "top5": None, "probe_top1": 81.0, "classes": 37}, "sources": {}}},
}


class Echo:
    """A form that gives the model's own embeddings, moved by a little."""

    name, library, tolerance, usage = "echo", "torch", 1e-5, "import torch"

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def check(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def write(self, encoder: Encoder, folder: Path) -> None:
        write_json(folder / "model.json", {})

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        assert (folder / "model.json").is_file()
        texts = self.encoder.encode_text(sample.captions)
        texts[-1, 0] += self.shift
        return self.encoder.encode_image(sample.pictures), texts


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return make_bundle(tmp_path_factory.mktemp("model"))


def test_the_folder_appears_whole_and_says_what_was_measured(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(exports.FORMATS, "echo", Echo(1e-6))
    card = tmp_path / "card.md"
    card.write_text("scores")
    exports.export(encoder, CardFacts("shop@3"), "echo", synthetic_sample(), tmp_path / "deep" / "out", card)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]
    found = sorted(path.name for path in (tmp_path / "deep" / "out").iterdir())
    assert found == ["MODEL_CARD.md", "README.md", "model.json"]
    readme = (tmp_path / "deep" / "out" / "README.md").read_text()
    assert "1.0e-06 for captions apart (1e-05 is allowed)" in readme
    assert "pipeline_tag" not in readme
    assert "4 drawn pictures and 4 captions" in capsys.readouterr().out
    with pytest.raises(ZeroVLError, match="is there already"):
        exports.export(encoder, CardFacts("shop@3"), "echo", synthetic_sample(), tmp_path / "deep" / "out")


def test_the_card_says_what_was_measured_in_the_hub_s_form(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As huggingface_hub reads it, which also takes every name in the folder."""
    monkeypatch.setitem(exports.FORMATS, "echo", Echo(0.0))
    results = hub_results(SCORES)
    found = [result.to_json() for result in results]
    facts = CardFacts("shop@3", "cc-by-nc-4.0", pipeline_tag(results), found, results_table(results))
    exports.export(encoder, facts, "echo", synthetic_sample(), tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["license"], data["pipeline_tag"]) == ("torch", "cc-by-nc-4.0", ZERO_SHOT)
    assert isinstance(card, ModelCard)
    assert card.data.model_name == "shop@3"
    read = {
        (result.task_type, result.dataset_name, result.metric_name): (result.metric_type, result.metric_value)
        for result in card.data.eval_results or []
    }
    assert read == {
        ("image-text-retrieval", "mean over 2 sources", "RSUM, of 600"): ("rsum", 206.7),
        ("image-text-retrieval", "pool of all sources", "RSUM, of 600"): ("rsum", 100.0),
        ("image-text-retrieval", "photos", "RSUM, of 600"): ("rsum", 293.4),
        ("image-text-retrieval", "photos", "image to text R@1, percent"): ("recall", 40.12),
        ("image-text-retrieval", "web (unseen)", "RSUM, of 600"): ("rsum", 120.0),
        ("zero-shot-image-classification", "pets", "top-1, percent"): ("accuracy", 63.2),
        ("image-classification", "pets", "linear probe, top-1, percent"): ("accuracy", 81.0),
    }
    assert "| web (unseen) | RSUM, of 600 | 120 |" in card.text
    for path in (tmp_path / "out").rglob("*"):
        CommitOperationAdd(path.relative_to(tmp_path / "out").as_posix(), str(path))


def test_the_headline_is_first_and_a_lone_source_is_its_own() -> None:
    table = results_table(hub_results(SCORES | {"sources": {"a|b": {"rsum": 293.4}, "web": {"rsum": 120.0}}}))
    assert table.splitlines()[2:5] == [
        "| mean over 2 sources | RSUM, of 600 | 206.7 |",
        "| pool of all sources | RSUM, of 600 | 100 |",
        r"| a\|b | RSUM, of 600 | 293.4 |",
    ]
    alone = {"mean": {"rsum": 120.0}, "overall": {"rsum": 120.0}, "sources": {"web": {"rsum": 120.0}}}
    assert [result.title for result in hub_results(alone)] == ["web"]


def test_a_probe_alone_is_no_task_of_the_model() -> None:
    probed = {"sources": {}, "evaluators": {"pets": {"overall": {"probe_top1": 81.0}}}}
    assert [result.task for result in hub_results(probed)] == ["image-classification"]
    assert pipeline_tag(hub_results(probed)) is None
    with pytest.raises(ZeroVLError, match="--license Apache 2: give its short name in small letters"):
        check_licence("Apache 2")


def test_a_card_names_the_forms_that_an_export_refuses(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(encoder.model.architecture, pooling="first")
    kinds = [
        own,
        replace(own, pooling="mean"),
        replace(own, pooling="last"),
        replace(own, resize_mode="shortest-rounded"),
        replace(own, resize_mode="squash", resize_size=own.image_size + 1),
        replace(own, image_tower="open_clip:resnet"),
        replace(own, text_config={**own.text_config, "model_type": "distilbert"}),
    ]
    refused = set()
    for kind in kinds:
        monkeypatch.setattr(encoder.model, "architecture", kind)
        for form, reason in reasons_against(kind).items():
            if reason:
                refused.add(form)
                with pytest.raises(ZeroVLError, match=re.escape(reason)):
                    exports.FORMATS[form].check(encoder)
            else:
                exports.FORMATS[form].check(encoder)
    assert set(reasons_against(own)) == set(exports.FORMATS)
    assert set(reasons_against(own).values()) == {""}
    assert refused == {"open-clip", "hugging-face"}


@pytest.mark.parametrize("shift", [1e-3, float("nan")])
def test_other_embeddings_are_an_error_and_leave_nothing(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    monkeypatch.setitem(exports.FORMATS, "echo", Echo(shift))
    with pytest.raises(ZeroVLError, match=r"gives other embeddings .* nothing was written"):
        exports.export(encoder, CardFacts("shop"), "echo", synthetic_sample(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "interpolation"),
    [("squash", "bilinear"), ("shortest", "bicubic"), ("shortest-rounded", "bilinear")],
)
def test_the_transform_that_is_handed_along_is_the_one_of_evaluation(
    encoder: Encoder, tmp_path: Path, mode: str, interpolation: str
) -> None:
    architecture = replace(encoder.model.architecture, resize_mode=mode, interpolation=interpolation, resize_size=41)
    write_transform(architecture, tmp_path)
    transform, own = Transform(tmp_path), EvaluationTransform.of(architecture)
    strip = Image.fromarray(np.random.default_rng(0).integers(256, size=(3, 200, 3), dtype=np.uint8))
    for picture in [*pictures_of_all_modes(), strip, strip.transpose(Image.Transpose.ROTATE_90)]:
        expected = encoder.model.normalise(own(to_rgb(picture))[None])[0]
        assert expected.shape == (3, 32, 32)
        assert np.abs(transform(picture) - expected.numpy()).max() < 1e-6
    for name in ("zerovl_transform.py", "picture_looks.py"):
        assert "zerovl." not in (tmp_path / name).read_text()


def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(ZeroVLError, match=r"--to x needs no_such_library.*zerovl\[export\]"):
        require("no_such_library", "--to x")


def test_a_difference_is_the_largest_of_all_components() -> None:
    ours = torch.zeros(2, 3)
    theirs = torch.tensor([[0.0, 0.0, 1e-3], [-2e-3, 0.0, 0.0]])
    assert largest_difference(ours, theirs) == pytest.approx(2e-3)
    assert largest_difference(ours, theirs[:1]) == float("inf")
    assert largest_difference(ours, theirs * float("nan")) == float("inf")


@pytest.mark.parametrize("length", [32, 33, 40, 101])
def test_the_middle_of_a_long_picture_gives_what_the_whole_of_it_gives(length: int) -> None:
    strip = Image.fromarray(np.random.default_rng(0).integers(256, size=(1, length, 3), dtype=np.uint8))
    left = (8 * length - 8) // 2
    whole = strip.resize((8 * length, 8), Image.Resampling.BICUBIC).crop((left, 0, left + 8, 8))
    pixels = EvaluationTransform(8, 8, "shortest", "bicubic")(strip)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(whole))


def test_the_offset_of_a_crop_is_rounded_as_each_library_does() -> None:
    """Where three columns are left over, transformers leaves out one on the left and torchvision two."""
    columns = Image.fromarray(np.arange(11, dtype=np.uint8)[None].repeat(8, 0)).convert("RGB")  # 11 wide, 8 high
    for mode, first in (("shortest", 1), ("shortest-rounded", 2)):
        pixels = EvaluationTransform(8, 8, mode)(columns)
        assert pixels[0, 0].tolist() == list(range(first, first + 8))
    with pytest.raises(ZeroVLError, match="resize_mode 'longest' of the model is not one of squash"):
        EvaluationTransform(8, 8, "longest")
