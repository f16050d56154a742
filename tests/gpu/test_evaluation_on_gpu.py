"""What `zerovl evaluate` computes on a GPU against the same on the CPU: embeddings, and the places of right items."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.real_world import make_model, make_project, settings
from zerovl.device import VARIABLE
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.evaluation.base import Evaluation
from zerovl.evaluation.job import Job
from zerovl.evaluation.ranking import Ranking, rank
from zerovl.evaluation.two_way import rank_both_ways
from zerovl.workspace import Workspace

# Of an embedding's coordinate: float32 with the sums of another order. TF32's ten bits would be off by 1e-3.
TOLERANCE = 1e-5


def counts(ranking: Ranking) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([ranking.better, ranking.right, ranking.wrong])


PICTURES, OWNER = np.arange(700), np.arange(3000) % 700


def whole_numbers() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (700, 4) and texts (3000, 4) with sums of products below 2^24, exact in any order, equal rows among them.

    Most numbers of the images have more than the 11 bits of TF32, where whole numbers up to 2,048 are exact.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(-4000, 4001, (700, 4), generator=generator).float()
    images[600:] = images[:100]
    texts = torch.randint(-1000, 1001, (3000, 4), generator=generator).float()
    texts[2900:] = texts[:100]
    return images, texts


def in_tf32(numbers: torch.Tensor) -> torch.Tensor:
    """What a product in TF32 reads of float32: 10 bits behind the first one, the nearest, halves away from zero."""
    return ((numbers.view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)


def test_tf32_would_move_places() -> None:
    """On the CPU: else the test of the places could not tell it from float32."""
    images, texts = whole_numbers()
    assert float(images.abs().max() * texts.abs().max()) * images.shape[1] < 2**24
    assert in_tf32(torch.tensor([2047.0, 2049.0, -2051.0, 4000.0])).tolist() == [2047.0, 2050.0, -2052.0, 4000.0]
    rounded = in_tf32(images), in_tf32(texts)
    for left, right, group, other in ((0, 1, PICTURES, OWNER), (1, 0, OWNER, PICTURES)):
        both = (images, texts), rounded
        exact, moved = (rank(its[left], its[right], group, other, 256) for its in both)
        assert (exact.better != moved.better).mean() > 0.02


@pytest.mark.gpu
def test_places_are_those_of_the_slow_reference(device: torch.device) -> None:
    images, texts = whole_numbers()
    i2t, t2i = rank_both_ways(images, texts, OWNER, 256, Ranks(0, 1, device, ALONE.collectives))
    assert np.array_equal(counts(i2t), counts(rank(images, texts, PICTURES, OWNER, 256)))
    assert np.array_equal(counts(t2i), counts(rank(texts, images, OWNER, PICTURES, 256)))
    assert int(i2t.wrong.sum()) > 0


def evaluated(workspace: Workspace) -> Evaluation:
    params = settings(workspace.root)
    job = Job(params.evaluate, params.machine, workspace.root, workspace.root, workspace.model)
    return job.evaluate()[0]


@pytest.mark.gpu
def test_evaluation_has_the_places_of_the_cpu(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place may differ where the CPU's scores are closer than what rounding moves, and nowhere else."""
    workspace = make_project(tmp_path)
    make_model(workspace, seed=1)
    on_gpu = evaluated(workspace)
    assert on_gpu.model.device == device
    monkeypatch.setenv(VARIABLE, "cpu")
    on_cpu = evaluated(workspace)
    assert on_cpu.model.device.type == "cpu"
    assert on_gpu.pool.keys == on_cpu.pool.keys
    for ours, theirs in (
        (on_gpu.embeddings.image, on_cpu.embeddings.image),
        (on_gpu.embeddings.text, on_cpu.embeddings.text),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=TOLERANCE)

    scores = on_cpu.embeddings.image.double() @ on_cpu.embeddings.text.double().T  # (I, M)
    near = 2 * TOLERANCE
    compared = 0
    for name, its in on_gpu.scores.items():
        part = scores[torch.from_numpy(its.images)][:, torch.from_numpy(its.captions)]
        right = part.diagonal()  # of each picture its one caption
        for ranking, gaps in ((its.result.i2t, part - right[:, None]), (its.result.t2i, part.T - right[:, None])):
            least, most = (gaps > near).sum(1).numpy(), (gaps > -near).sum(1).numpy() - 1
            assert (least <= ranking.better).all(), name
            assert (ranking.better <= most).all(), name
            compared += int((least == most).sum())
    assert compared > len(on_gpu.pool.keys)  # of most queries the place is certain
