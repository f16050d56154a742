"""Where the pictures of a run are decoded changes neither the run that it is nor what is drawn for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.encoded import Imitated
from tests.support.tiny_project import TRAIN, copy_project, make_project, recipe
from zerovl.bundle_files import WEIGHTS
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.trainer import StopRequest
from zerovl.errors import ZeroVLError
from zerovl.training import picture_route as routes
from zerovl.training import run as training
from zerovl.training.picture_route import ByLoader, picture_route
from zerovl.workspace import Workspace

ONE = Ranks(0, 1, torch.device("cpu"), OneRank())
PAIRS = 2 * TRAIN  # of both sources: an epoch


class Refusing(Imitated):
    def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
        raise RuntimeError("Failed to decode batch: 4")


def trained(workspace: Workspace, decode_on: str) -> tuple[str, dict[str, Tensor]]:
    """Train an epoch; returns the run's fingerprint and the weights."""
    settings = ("train.epochs=1.0", "train.valid_checks=0", "train.pair_order=caption_length")
    training.train(recipe(*settings, f"machine.decode_on={decode_on}"), workspace, ONE, StopRequest())
    (folder,) = workspace.runs.iterdir()
    return folder.name, load_file(workspace.model / WEIGHTS)


def test_a_run_is_the_same_run_whatever_decodes_its_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    name, expected = trained(project, "cpu")
    monkeypatch.setattr(routes, "nvjpeg_problem", lambda device: None)
    found = {}
    for decoder in (Refusing, Imitated):
        monkeypatch.setattr(routes, "NvJpeg", lambda device, decoder=decoder: decoder())
        workspace = copy_project(project, tmp_path / decoder.__name__)
        with caplog.at_level("INFO", logger="zerovl"):
            named, found[decoder] = trained(workspace, "gpu")
        assert named == name
    # Nothing stays on a CPU between the passes of a step: each picture is decoded twice, but for those of the
    # micro-batch whose graph is kept, one of four.
    decoded = PAIRS * 7 // 4
    assert f"rank 0: 0 pictures were decoded on the GPU, {decoded} on the CPU" in caplog.text
    assert f"{decoded} that nvJPEG refused" in caplog.text
    assert f"rank 0: {decoded} pictures were decoded on the GPU, 0 on the CPU" in caplog.text
    assert all(torch.equal(found[Refusing][key], tensor) for key, tensor in expected.items())
    moved = [(found[Imitated][key] - tensor).abs().max() for key, tensor in expected.items()]
    assert 0 < max(moved) < 0.05  # some values of pictures are one level off


def test_a_run_that_ends_in_an_error_says_what_was_decoded_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutMemory(Imitated):
        def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
            if len(self.batches) == 2:
                raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 5")
            return super().__call__(files)

    monkeypatch.setattr(routes, "nvjpeg_problem", lambda device: None)
    monkeypatch.setattr(routes, "NvJpeg", lambda device: WithoutMemory())
    project = make_project(tmp_path / "project")
    with (
        caplog.at_level("INFO", logger="zerovl"),
        pytest.raises(
            ZeroVLError, match=r"others: nvJPEG failed .*lower train\.micro_batch, or set machine\.decode_on"
        ),
    ):
        trained(project, "gpu")
    assert re.search(r"rank 0: [1-9]\d* pictures were decoded on the GPU, 0 on the CPU", caplog.text)


@pytest.mark.parametrize(
    ("settings", "stored", "said"),
    [
        ((), False, "machine.decode_on gpu: there is no GPU, so the loader processes decode all pictures on the CPU"),
        (
            ("train.freeze=[image]", "train.augment.crop_scale=[1.0, 1.0]"),
            False,
            "pictures of a frozen tower are shown whole, so the loader processes decode",
        ),
        ((), True, ""),
        (("machine.decode_on=cpu",), False, ""),
    ],
)
def test_a_gpu_that_is_not_used_is_told(
    settings: tuple[str, ...], stored: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="zerovl"):
        route = picture_route(recipe("machine.decode_on=gpu", *settings), ONE, stored)
    assert isinstance(route, ByLoader)
    assert said in caplog.text if said else not caplog.text


class After(OneRank):
    """Of two ranks the second, which sees what the first one gave."""

    def __init__(self, first: Tensor) -> None:
        self.first = first

    def gather(self, local: Tensor) -> Tensor:
        return torch.cat([self.first, local])


class Keeping(OneRank):
    def gather(self, local: Tensor) -> Tensor:
        self.given = local
        return local


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("no nvJPEG", "no nvJPEG", []),
        ("no nvJPEG", None, []),
        (None, "no nvJPEG", ["rank 1: machine.decode_on gpu: no nvJPEG, so the loader processes decode all pictures"]),
        ("there is no GPU", "no nvJPEG", ["rank 1: machine.decode_on gpu: no nvJPEG, so the loader processes decode"]),
    ],
)
def test_a_rank_with_another_reason_than_the_first_tells_it(
    first: str | None,
    second: str | None,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params, keeping = recipe("machine.decode_on=gpu"), Keeping()
    monkeypatch.setattr(routes, "NvJpeg", lambda device: Imitated())
    monkeypatch.setattr(routes, "nvjpeg_problem", lambda device: first)
    picture_route(params, Ranks(0, 1, ONE.device, keeping), False)
    monkeypatch.setattr(routes, "nvjpeg_problem", lambda device: second)
    with caplog.at_level("INFO", logger="zerovl"):
        route = picture_route(params, Ranks(1, 2, ONE.device, After(keeping.given)), False)
    assert isinstance(route, ByLoader) == (second is not None)
    assert len(caplog.messages) == len(said)
    assert all(found.startswith(text) for found, text in zip(caplog.messages, said, strict=True))


def test_what_a_gpu_does_not_do_is_refused() -> None:
    with pytest.raises(
        ZeroVLError, match=r"decode_on gpu and train\.augment\.auto_augment true.*auto_augment to false"
    ):
        recipe("machine.decode_on=gpu", "train.augment.auto_augment=true")
    streamed = "train.streaming.sources=[{name: a, urls: [a.tar]}]"
    with pytest.raises(ZeroVLError, match=r"decode_on gpu and train\.reading streaming.*train\.reading to indexed"):
        recipe("machine.decode_on=gpu", "train.reading=streaming", streamed)
