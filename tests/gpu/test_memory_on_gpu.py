"""What a run sizes by itself fits the card: micro-batch and kept graphs, for 200 steps of changing lengths."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.device_runs import StepInputs, make_trainer, page_locked, run_trainer
from tests.support.towers import MicroInputs, model, step_context
from zerovl import memory
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep
from zerovl.memory import MARGIN
from zerovl.model.towers import build
from zerovl.objective.loss import SoftmaxLoss
from zerovl.params import Params
from zerovl.params_file import from_recipe
from zerovl.sizing.batch_layout import choose
from zerovl.sizing.micro_batch_search import RealTrial
from zerovl.sizing.synthetic import make_mix, timed_pass

pytestmark = pytest.mark.gpu

LIMIT = 1 << 30  # bytes of the card that this process may take
BATCH, STEPS, SIDE, TOKENS, VOCABULARY = 1024, 200, 64, 48, 100
LEAST = 0.5  # of the limit is used: the graphs of the whole batch are about twice as large as it is
RECIPE = {
    "model": {
        "image_tower": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": SIDE, "patch_size": 8, "embed_dim": 192, "depth": 3, "num_heads": 3},
        },
        "text_tower": {
            "config": {
                "hidden_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 256,
                "max_position_embeddings": 64,
            }
        },
        "embed_dim": 64,
        "image_size": SIDE,
        "resize_size": SIDE,
        "max_tokens": TOKENS,
    },
    "train": {"micro_batch": "auto", "precision": "bf16", "valid_checks": 0},
    "machine": {"activation_budget": "auto"},
}


@pytest.fixture
def limited(device: torch.device) -> Iterator[None]:
    """A card of LIMIT bytes, as far as this process may take them."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(LIMIT / total, device)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, device)


def batches(micro_batches: int, size: int, device: torch.device) -> Iterator[StepInputs]:
    """Captions of 4 to TOKENS tokens, another longest one in each micro-batch; the longest possible is among them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # once, not in each step
    for step in range(STEPS):
        parts = []
        for number in range(micro_batches):
            drawn = int(torch.randint(4, TOKENS + 1, (), generator=generator))
            length = TOKENS if (step + number) % 7 == 0 else drawn
            ids = torch.randint(5, VOCABULARY, (size, length), generator=generator)
            own = length - torch.arange(size) % (length - 1)  # (m,)
            mask = (torch.arange(length) < own[:, None]).long()
            parts.append(MicroInputs(pixels, ids, mask))
        yield StepInputs(step, page_locked(parts, device))


def test_what_is_chosen_fits_for_200_steps(
    limited: None, device: torch.device, one_rank: Ranks, tmp_path: Path
) -> None:
    params: Params = from_recipe(RECIPE, [f"train.batch_size={BATCH}"], "x")
    dual = build(params.model, VOCABULARY, seed=0).to(device)
    precision = Precision("bf16", device)
    sizing = choose(params, dual, SoftmaxLoss(), precision, one_rank, tmp_path)
    print(sizing.said)
    torch.cuda.reset_peak_memory_stats(device)
    layout = sizing.layout
    step = DecoupledStep(step_context(dual, one_rank, precision), layout.kept_graphs)
    trainer = make_trainer(dual, step, precision, one_rank, tmp_path, steps=STEPS)
    outcome, rows = run_trainer(trainer, batches(layout.micro_batches, layout.micro_batch, device))
    assert (outcome.state, len(rows)) == ("finished", STEPS)
    used = torch.cuda.max_memory_allocated(device) / LIMIT
    assert LEAST <= used <= MARGIN["cuda"], f"{used:.1%} of the limit: {sizing.said}"
    assert layout.kept_graphs < layout.micro_batches  # the limit is what decided


def test_a_gpu_that_runs_out_of_memory_is_as_before(device: torch.device) -> None:
    dual = model("resnet18").to(device)
    prepare = timed_pass(dual, make_mix("coin"), Precision("bf16", device), device, 8)
    free = memory.free_memory(device)
    trial = RealTrial(dual, prepare, device, ballast=free - (256 << 20))
    before = {name: value.clone() for name, value in dual.state_dict().items()}
    assert trial(8)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated(device)
    random = torch.cuda.get_rng_state(device)
    assert trial(1 << 15) is None  # far more than 256 MiB
    assert torch.cuda.memory_allocated(device) == held
    assert memory.free_memory(device) == pytest.approx(free, rel=0.05)
    assert trial(8)
    assert torch.equal(torch.cuda.get_rng_state(device), random)
    assert all(torch.equal(value, before[name]) for name, value in dual.state_dict().items())
