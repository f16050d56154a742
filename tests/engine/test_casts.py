"""Under bf16 and fp16 a pass makes the low-precision copies of the weights once, and the gradient stays the same."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.towers import CPU, RANKS, batch, decoupled_step, gradients, model, prepared
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.objective.mixup import Mix


class WeightCasts(TorchDispatchMode):
    """Counts copies of matrices of these shapes in another dtype."""

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.shapes = shapes
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        low = (kwargs or {}).get("dtype") in (torch.bfloat16, torch.float16)
        if func is torch.ops.aten._to_copy.default and low:
            self.count += args[0].shape in self.shapes
        return func(*args, **(kwargs or {}))


TWO = Ranks(0, 2, CPU, OneRank())


def casts_and_gradients(
    ranks: Ranks, precision: str, kept_graphs: int, **options: Any
) -> tuple[int, dict[str, Tensor]]:
    dual = prepared(model(depth=2), **options)
    mode = Precision(precision, CPU)
    mode.scaler = torch.amp.GradScaler("cpu", init_scale=128.0, enabled=precision == "fp16")
    matrices = {p.shape for name, p in dual.named_parameters() if p.dim() == 2 and "embed" not in name}
    with WeightCasts(matrices) as casts:
        decoupled_step(dual, ranks, mode, seed=3, kept_graphs=kept_graphs)(batch(), Mix("image", 0.4), 0)
    return casts.count, gradients(dual)


@pytest.mark.parametrize("options", [{}, {"activation_checkpointing": True}], ids=["", "checkpointed"])
@pytest.mark.parametrize("kept_graphs", [0, 2, 4])
@pytest.mark.parametrize(("precision", "ranks", "copies"), [("bf16", RANKS, 2), ("fp16", RANKS, 2), ("bf16", TWO, 3)])
def test_weights_are_cast_once_a_pass(
    precision: str,
    ranks: Ranks,
    copies: int,
    kept_graphs: int,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One set of copies without gradients, one with; several ranks have one more for the backward that sends."""
    shared, found = casts_and_gradients(ranks, precision, kept_graphs, **options)
    monkeypatch.setattr(Precision, "one_pass", lambda _: nullcontext())
    apart, expected = casts_and_gradients(ranks, precision, kept_graphs, **options)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    passes = 8 - kept_graphs  # of four micro-batches, forward
    copies -= kept_graphs == 4  # nothing goes forward without gradients
    if not options:
        assert shared * passes == apart * copies
    else:
        assert shared * passes < apart * copies, "forward once more in the backward, from the same copies"
