"""A run that waited for its data says so, with the share and the setting."""

from zerovl.params_file import from_recipe
from zerovl.training import data_wait

PARAMS = from_recipe({}, ["train.batch_size=128", "machine.loader_workers=3"], "demo")


def rows(data_seconds: float, steps: int = 41) -> list[dict[str, float]]:
    """Steps of half a second."""
    return [{"step": step, "pairs_per_second": 256.0, "data_seconds": data_seconds} for step in range(steps)]


def test_a_loader_that_keeps_up_is_not_mentioned() -> None:
    assert data_wait.found(PARAMS, rows(0.02)) == []


def test_the_first_batch_is_not_the_rule() -> None:
    log = rows(0.0)
    log[0]["data_seconds"] = 60.0
    assert data_wait.found(PARAMS, log) == []


def test_share_seconds_and_setting_are_named() -> None:
    (sentence,) = data_wait.found(PARAMS, rows(0.1))
    assert sentence.startswith("20% of the steps' time went by waiting for data (4.0 of 20.0 s)")
    assert "machine.loader_workers (it is 3 a rank)" in sentence
    assert sentence.endswith("pictures of fewer pixels (prepare.max_side) are decoded faster")


def test_pictures_that_are_read_as_features_are_not_to_be_made_smaller() -> None:
    still = "train.augment={crop_scale: [1.0, 1.0], auto_augment: false, flip_probability: 0.0}"
    frozen = from_recipe({}, ["train.freeze=[image]", "train.mixup=none", still], "demo")
    (sentence,) = data_wait.found(frozen, rows(0.1))
    assert "max_side" not in sentence
    assert "read as features" in sentence


def test_logs_of_before_and_short_ones_say_nothing() -> None:
    assert data_wait.found(PARAMS, [{"pairs_per_second": 256.0}] * 50) == []
    assert data_wait.found(PARAMS, rows(0.5, steps=10)) == []
