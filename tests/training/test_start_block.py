"""What a run says at its start."""

from tests.support.towers import model
from zerovl.params import Params
from zerovl.params_file import from_recipe
from zerovl.training.start_block import batch_normalisation, without_effect


def test_settings_without_effect_are_said() -> None:
    assert without_effect(Params()) == []
    notes = without_effect(from_recipe({}, ["train.step=plain", "train.mixup=none", "train.valid_checks=0"], "x"))
    assert [note.split()[0] for note in notes] == ["train.micro_batch", "train.mixup_alpha", "train.valid_pairs"]


def test_batch_norm_under_debiased_sampling_is_said() -> None:
    (note,) = batch_normalisation(Params(), model("test_resnet"))
    assert "BatchNorm" in note
    assert batch_normalisation(Params(), model()) == []
    assert batch_normalisation(from_recipe({}, ["train.sampling=shuffled"], "x"), model("test_resnet")) == []


def test_rates_of_a_frozen_tower_are_said_to_have_no_effect() -> None:
    changed = ["train.freeze=[text]", "train.fine_tuning.text_lr_scale=0.5", "train.fine_tuning.image_lr_scale=0.5"]
    assert without_effect(from_recipe({}, changed, "x")) == [
        "train.fine_tuning.text_lr_scale 0.5 has no effect: train.freeze names that tower"
    ]
