"""What `zerovl plan --measure` times is what a training with the same settings does."""

from typing import Any

import pytest
import torch

from tests.support.tiny_project import make_project, recipe
from zerovl.data.batches.loader import TrainBatches, train_batches
from zerovl.data.batches.sides import Pictures, PicturesAsStored
from zerovl.planning import calibrate
from zerovl.sizing.footprint import BatchLayout
from zerovl.training import picture_route
from zerovl.workspace import Workspace

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("settings", "problem", "expected"),
    [
        (["machine.decode_on=gpu"], None, PicturesAsStored),
        (["machine.decode_on=gpu"], "there is no GPU", Pictures),
        (["machine.decode_on=gpu", "train.freeze=[image]", "train.augment.crop_scale=[1.0, 1.0]"], None, Pictures),
        (["machine.decode_on=cpu"], None, Pictures),
    ],
)
def test_the_loader_is_timed_with_what_it_does_to_pictures(
    project: Workspace, settings: list[str], problem: str | None, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def kept(**options: Any) -> TrainBatches:
        timed.append(options["images"])
        return train_batches(**options)

    monkeypatch.setattr(picture_route, "nvjpeg_problem", lambda device: problem)
    monkeypatch.setattr(calibrate, "train_batches", kept)
    monkeypatch.setattr(calibrate, "_LOADER_SECONDS", 0.0)
    params = recipe("train.epochs=1.0", "machine.loader_workers=0", *settings)
    batch = params.train.batch_size
    rate, _ = calibrate._loader(params, BatchLayout(batch, 1, batch, 0), project, CPU)
    assert rate
    assert [type(images) for images in timed] == [expected]
