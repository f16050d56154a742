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
