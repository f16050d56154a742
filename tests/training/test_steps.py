"""Properties of the two steps that the golden gradients do not cover."""

from dataclasses import dataclass

import pytest
import torch
from gang import run_gang
from torch import Tensor, nn

from zerovl.errors import ZeroVLError
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.towers import from_architecture
from zerovl.objective.collectives import OneRank
from zerovl.objective.mixup import Mix
from zerovl.params import ModelParams
from zerovl.training.forward import Precision, random_seeds
from zerovl.training.loop import not_finite, out_of_memory
from zerovl.training.optimiser import Schedule
from zerovl.training.ranks import Ranks
from zerovl.training.steps import DecoupledStep, PlainStep

CPU = torch.device("cpu")
RANKS = Ranks(0, 1, CPU, OneRank())
TEXT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.3,
}


@dataclass
class MicroInputs:
    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    keys: tuple[str, ...] = ("a-1", "a-2")


def model(image_tower: str = "vit_tiny_patch16_224", **options: object) -> DualEncoder:
    if image_tower.startswith("vit"):
        options = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "proj_drop_rate": 0.2, **options}
    defaults = ModelParams(text_tower={"config": {"hidden_size": 16}})  # type: ignore[arg-type]
    architecture = Architecture(
        image_tower=image_tower,
        image_options=dict(options),
        text_config=TEXT,
        embed_dim=8,
        temperature=0.05,
        learn_temperature=True,
        image_size=32,
        resize_size=32,
        mean=defaults.mean,
        std=defaults.std,
        max_tokens=8,
    )
    return from_architecture(architecture, seed=1)


def batch(micro_batches: int = 4, size: int = 6) -> list[MicroInputs]:
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(micro_batches):
        images = torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
        ids = torch.randint(5, 40, (size, 8), generator=generator)
        parts.append(MicroInputs(images, ids, torch.ones_like(ids)))
    return parts


def gradients(dual: DualEncoder) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in dual.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kept_graphs", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("side", ["none", "image", "text"])
def test_dropout_is_replayed_and_kept_graphs_change_nothing(side: str, kept_graphs: int) -> None:
    found = []
    for kind, options in ((PlainStep, {}), (DecoupledStep, {"kept_graphs": kept_graphs})):
        dual = model().double().train()
        step = kind(dual, RANKS, Precision("float32", CPU), seed=3, **options)
        loss = step(batch(), Mix(side, 0.4), 7)  # type: ignore[arg-type]
        found.append((float(loss), gradients(dual)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for name, expected in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kept_graphs", "forwards"), [(0, 8), (1, 7), (4, 4)])
def test_a_kept_graph_saves_its_second_forward(kept_graphs: int, forwards: int) -> None:
    dual = model().train()
    calls = []
    dual.image_tower.register_forward_hook(lambda *_: calls.append("image"))
    dual.text_tower.register_forward_hook(lambda *_: calls.append("text"))
    DecoupledStep(dual, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)(batch(), Mix(), 0)
    assert calls.count("image") == calls.count("text") == forwards


def test_masks_differ_between_steps_and_ranks() -> None:
    dual = model().train()
    other = Ranks(1, 1, CPU, OneRank())  # the second of two ranks, by its seeds
    losses = {
        float(DecoupledStep(dual, ranks, Precision("float32", CPU), seed=3)(batch(), Mix(), step))
        for ranks in (RANKS, other)
        for step in (0, 1)
    }
    assert len(losses) == 4


def test_a_micro_batch_has_the_same_masks_on_any_number_of_ranks() -> None:
    assert random_seeds(3, 7, rank=1, micro_batches=2) == random_seeds(3, 7, rank=0, micro_batches=4)[2:]
    assert len({seed for pair in random_seeds(3, 7, rank=0, micro_batches=4) for seed in pair}) == 8


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kept_graphs", [0, 1, 4])
def test_running_statistics_move_once(kept_graphs: int, momentum: float | None) -> None:
    plain, decoupled = (model("test_resnet").train() for _ in range(2))
    for dual in (plain, decoupled):
        for layer in dual.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = momentum
    PlainStep(plain, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix(), 0)
    step = DecoupledStep(decoupled, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)
    step(batch(), Mix(), 0)
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(decoupled)[name], expected, rtol=1e-3, atol=1e-5)
    layers = [m for m in decoupled.modules() if isinstance(m, nn.BatchNorm2d)]
    assert layers
    assert all(int(layer.num_batches_tracked) == 4 for layer in layers)
    for (name, a), b in zip(plain.named_buffers(), decoupled.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def _statistics_on_a_rank(ranks: Ranks, part: int | None = None) -> list[Tensor]:
    """After a step whose local batch is half `part` of the whole one, by default the rank's own half."""
    dual = model("test_resnet").train()
    start = 2 * (ranks.rank if part is None else part)
    step = DecoupledStep(dual, ranks, Precision("float32", CPU), seed=0, kept_graphs=1)
    step(batch()[start : start + 2], Mix(), 0)
    return [buffer for name, buffer in dual.named_buffers() if "running" in name]


def test_running_statistics_are_averaged_over_ranks() -> None:
    first, second = run_gang(2, _statistics_on_a_rank)
    halves = [_statistics_on_a_rank(RANKS, part) for part in (0, 1)]
    for one, other, own, others in zip(first, second, *halves, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, (own + others) / 2)


@pytest.mark.parametrize("kept_graphs", [0, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_and_unscaled(precision: str, kept_graphs: int) -> None:
    exact, low = model().train(), model().train()
    DecoupledStep(exact, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix(), 0)
    scaled = Precision(precision, CPU)
    if precision == "fp16":  # the default scale overflows in the first steps, as it is meant to
        scaled.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    DecoupledStep(low, RANKS, scaled, seed=0, kept_graphs=kept_graphs)(batch(), Mix(), 0)
    optimiser = torch.optim.AdamW(low.parameters())
    scaled.scaler.unscale_(optimiser)
    for name, expected in gradients(exact).items():
        found = gradients(low)[name]
        similarity = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
        if expected.abs().max() > 1e-6:
            assert similarity > 0.97, name


@pytest.mark.parametrize("kept_graphs", [0, 2])
@pytest.mark.parametrize("tower", ["image_tower", "text_tower"])
def test_frozen_tower_goes_forward_once_and_gets_no_gradient(tower: str, kept_graphs: int) -> None:
    plain, decoupled = model().double().train(), model().double().train()
    calls = []
    for dual in (plain, decoupled):
        getattr(dual, tower).requires_grad_(False)
    getattr(decoupled, tower).register_forward_hook(lambda *_: calls.append(1))
    PlainStep(plain, RANKS, Precision("float32", CPU), seed=0)(batch(), Mix("text", 0.3), 0)
    step = DecoupledStep(decoupled, RANKS, Precision("float32", CPU), seed=0, kept_graphs=kept_graphs)
    step(batch(), Mix("text", 0.3), 0)
    assert len(calls) == 4
    assert not any(name.startswith(tower) for name in gradients(decoupled))
    assert gradients(plain).keys() == gradients(decoupled).keys()
    for name, expected in gradients(plain).items():  # the frozen tower has dropout: its masks were the same
        torch.testing.assert_close(gradients(decoupled)[name], expected, rtol=1e-9, atol=1e-12)


def test_schedule_is_warm_up_then_half_a_cosine() -> None:
    schedule = Schedule(peak=1.0, steps=100, warmup_steps=10, final_fraction=0.1)
    rates = [schedule.lr(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.55)  # half way down
    assert rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert Schedule(1.0, 1, 0, 0.1).lr(0) == pytest.approx(0.1)


def test_messages_name_step_source_keys_and_the_fix() -> None:
    @dataclass
    class StepBatch:
        step: int
        source: str
        micro_batches: list[MicroInputs]

    bad = StepBatch(12, "board", batch(2))
    assert isinstance(not_finite(bad, float("nan")), ZeroVLError)
    for word in ("nan", "step 12", "board", "a-1"):
        assert word in str(not_finite(bad, float("nan")))
    assert "train.micro_batch to 3" in str(out_of_memory(bad, RuntimeError("no more")))
