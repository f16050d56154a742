"""A dual encoder of a few thousand weights, and batches for it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.gradients import Gradients, gradient_sum
from zerovl.engine.model_options import prepare_model
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, PlainStep, StepContext
from zerovl.model.architecture import Architecture
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.towers import from_architecture
from zerovl.objective.loss import SoftmaxLoss
from zerovl.params import MachineParams, ModelParams, TrainParams

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
    identities: Tensor | None = None


def model(image_tower: str = "vit_tiny_patch16_224", logit_bias: float | None = None, **options: object) -> DualEncoder:
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
        logit_bias=logit_bias,
    )
    return from_architecture(architecture, seed=1)


def shallow() -> DualEncoder:
    """A text tower as it is, and the least image tower with dropout: half a minute of compilation less."""
    dual = model()
    torch.manual_seed(2)
    layers = nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.Dropout(0.2), nn.GELU()
    dual.image_tower = nn.Sequential(*layers)
    return dual


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


def step_context(
    dual: DualEncoder, ranks: Ranks, precision: Precision, seed: int = 0, gradients: Gradients | None = None
) -> StepContext:
    """With the paper's loss; `gradients` by default for a model that every rank holds whole."""
    return StepContext(dual, ranks, precision, SoftmaxLoss(), seed, gradients or gradient_sum(dual, ranks.collectives))


def plain_step(
    dual: DualEncoder, ranks: Ranks, precision: Precision, seed: int = 0, gradients: Gradients | None = None
) -> PlainStep:
    return PlainStep(step_context(dual, ranks, precision, seed, gradients))


def decoupled_step(
    dual: DualEncoder,
    ranks: Ranks,
    precision: Precision,
    seed: int = 0,
    gradients: Gradients | None = None,
    kept_graphs: int = 0,
) -> DecoupledStep:
    return DecoupledStep(step_context(dual, ranks, precision, seed, gradients), kept_graphs)


def settings(**values: Any) -> tuple[TrainParams, MachineParams]:
    """Both sections from settings of either; a batch of 24 in micro-batches of 6."""
    machine = {name: value for name, value in values.items() if name in MachineParams.model_fields}
    train = {name: value for name, value in values.items() if name not in machine}
    return (
        TrainParams.model_validate({"batch_size": 24, "micro_batch": 6, **train}),
        MachineParams.model_validate(machine),
    )


def prepared(dual: DualEncoder, ranks: Ranks = RANKS, **values: Any) -> DualEncoder:
    """The model with its options, in training mode; `values` as for `settings`."""
    train, machine = settings(**values)
    prepare_model(dual, train.freeze, machine, ranks)
    return dual.train()
