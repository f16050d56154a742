"""What a run says at its start."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.towers import model
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.streams.places import Begin, Layout, Places
from zerovl.distributed.ranks import ALONE
from zerovl.engine.checkpoint_folder import SavedOn
from zerovl.params import Params
from zerovl.params_file import from_recipe
from zerovl.sizing.footprint import Footprint
from zerovl.training import start_block
from zerovl.training.start_block import (
    batch_normalisation,
    equal_pairs,
    memory_line,
    resume_sentence,
    without_effect,
)


def test_settings_without_effect_are_said() -> None:
    assert without_effect(Params()) == []
    off = ["train.step=plain", "train.mixup=none", "train.valid_checks=0"]
    assert [note.split()[0] for note in without_effect(from_recipe({}, off, "x"))] == ["train.micro_batch"]
    notes = without_effect(from_recipe({}, [*off, "train.mixup_alpha=0.4", "train.valid_pairs=7"], "x"))
    assert [note.split()[0] for note in notes] == ["train.micro_batch", "train.mixup_alpha", "train.valid_pairs"]
    gathers = ["machine.shard_model=true", "machine.shard_gathers=low"]
    assert len(without_effect(from_recipe({}, [*gathers, "train.precision=float32"], "x"))) == 1
    assert without_effect(from_recipe({}, [*gathers, "train.precision=bf16"], "x")) == []


def test_other_readers_of_streams_do_not_resume_with_the_same_pairs() -> None:
    run: Any = SimpleNamespace(spec=SimpleNamespace(steps=9, parent=None), ranks=ALONE, params=Params())
    now, saved_on = Layout({}, 1, 2, 2, 10), SavedOn(ranks=2, threads=None)
    assert "now 1: the same pairs in the same order" in resume_sentence(run, 6, saved_on)
    places = Places(Begin(now, before=Layout({}, 2, 1, 2, 10)), 0)
    assert resume_sentence(run, 6, saved_on, places) == (
        "resumes after step 6, saved by 2 ranks x 1 machine.loader_workers, now 1 rank x 2 machine.loader_workers: "
        "from the first tar that one of them had not finished, some pairs come again"
    )
    same = Places(Begin(now, before=now), 0)
    assert "with the same parameters" in resume_sentence(run, 6, SavedOn(ranks=1, threads=None), same)
    assert resume_sentence(run, 9, saved_on, places).startswith("already trained")


def test_other_gathers_of_weights_are_said() -> None:
    run: Any = SimpleNamespace(spec=SimpleNamespace(steps=9, parent=None), ranks=ALONE, params=Params())
    assert resume_sentence(run, 6, SavedOn(1, None, "low")) == (
        "resumes after step 6, saved with weights gathered as low (machine.shard_gathers), now float32: they are "
        "rounded differently from here on"
    )
    for gathers in (None, "float32"):
        assert "with the same parameters" in resume_sentence(run, 6, SavedOn(1, None, gathers))


def test_on_the_cpu_the_tensors_and_the_process_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar's `mem` is of tensors alone on a GPU."""
    monkeypatch.setattr(start_block, "memory_in_use", lambda device: 700 * 2**20)
    tensors = Footprint(80 * 2**20, *[0] * 9)
    said = "about 80 MiB a rank at the highest: weights 80 MiB"
    assert memory_line(tensors, torch.device("cuda")) == said
    assert memory_line(tensors, torch.device("cpu")) == (
        f"{said}; mem of the bar is all of the process, 700 MiB before the first step"
    )


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


@pytest.mark.parametrize("sampling", ["debiased", "shuffled"])
def test_the_expected_equal_pairs_are_the_mean_of_what_batches_hold(sampling: str) -> None:
    sizes = {"art": 30, "web": 90}
    words = {name: np.arange(size) % (size // 3) for name, size in sizes.items()}  # each caption is that of three pairs
    statistics = {name: {"train": {"captions": size, "equals": _equals(words[name])}} for name, size in sizes.items()}
    params = from_recipe({}, [f"train.sampling={sampling}", "train.batch_size=16", "train.micro_batch=16"], "x")
    ((name, text),) = equal_pairs(params, sizes, sizes, statistics)
    assert name == "equal"
    assert text.startswith("100% of the captions and 0% of the pictures are also another pair's of the source; about ")
    assert text.endswith(" equal pairs a batch, as negatives")
    expected = float(text.split("about ")[1].split()[0])
    sampler = make_sampler(sampling, sizes, 16, 400.0, seed=0)
    found = []
    for step in range(sampler.steps):
        batch = sampler.batch(step)
        drawn = [
            (source, words[batch.sources[source]][row])
            for source, row in zip(batch.source_ids, batch.rows, strict=True)
        ]
        found.append(sum(one == other for one, other in combinations(drawn, 2)))
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


def test_with_an_epoch_of_captions_all_rows_may_meet() -> None:
    params = from_recipe({}, ["train.epoch_of=captions", "train.batch_size=16", "train.micro_batch=16"], "x")
    statistics = {"art": {"train": {"captions": 60, "equals": _equals(np.arange(60) // 2) | {"picture_pairs": 3}}}}
    ((_, text),) = equal_pairs(params, {"art": 30}, {"art": 60}, statistics)
    equal = 30 + 3 * 4  # 30 captions are there twice; two equal pictures have two captions each
    assert f"about {equal * 16 * 15 / (60 * 59):.3g} equal pairs a batch" in text


def _equals(words: np.ndarray) -> dict[str, int]:
    counts = np.bincount(words)
    pairs = int((counts * (counts - 1) // 2).sum())
    return {"captions": int(counts[counts > 1].sum()), "caption_pairs": pairs, "pictures": 0, "picture_pairs": 0}


def test_equal_pairs_are_not_said_of_data_that_were_validated_before_they_were_counted() -> None:
    assert equal_pairs(Params(), {"art": 30}, {"art": 30}, {}) == []
    assert equal_pairs(Params(), {"art": 30}, {"art": 30}, {"art": {"train": {"captions": 30}}}) == []
