"""Streams and norms of the towers in the precision of autocast: the same function, to its rounding."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.towers import CPU, RANKS, batch, decoupled_step, gradients, model, plain_step
from zerovl.engine.precision import Precision
from zerovl.engine.residual_stream import StreamNorm, lower_streams
from zerovl.errors import ZeroVLError
from zerovl.model.blocks import blocks
from zerovl.model.dual_encoder import DualEncoder
from zerovl.objective.mixup import Mix
from zerovl.params_file import from_recipe

MIX = Mix("text", 0.4)


def towers(low: bool) -> DualEncoder:
    dual = model(depth=2)
    if low:
        lower_streams(dual)
    return dual


def dtypes_between_blocks(dual: DualEncoder, precision: str) -> set[torch.dtype]:
    """What the blocks of both towers hand on in a step."""
    seen: set[torch.dtype] = set()

    def look(_block: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.add((output if isinstance(output, Tensor) else output[0]).dtype)

    hooks = [block.register_forward_hook(look) for t in (dual.image_tower, dual.text_tower) for block in blocks(t)]
    plain_step(dual, RANKS, Precision(precision, CPU), 3)(batch(), MIX, 7)
    for hook in hooks:
        hook.remove()
    return seen


def gradient(dual: DualEncoder, precision: str) -> Tensor:
    decoupled_step(dual, RANKS, Precision(precision, CPU), 3, kept_graphs=1)(batch(), MIX, 7)
    return torch.cat([part.flatten().double() for part in gradients(dual).values()])


def test_blocks_hand_on_low_precision() -> None:
    assert torch.float32 in dtypes_between_blocks(towers(low=False), "bf16")
    assert dtypes_between_blocks(towers(low=True), "bf16") == {torch.bfloat16}


def test_every_norm_is_found_and_names_stay() -> None:
    dual, before = model(depth=2), model(depth=2).state_dict().keys()
    norms = sum(isinstance(module, nn.LayerNorm) for module in dual.modules())
    assert lower_streams(dual) == norms > 0
    assert sum(isinstance(module, StreamNorm) for module in dual.modules()) == norms
    assert dual.state_dict().keys() == before


def test_without_autocast_nothing_changes() -> None:
    assert torch.equal(gradient(towers(low=True), "float32"), gradient(towers(low=False), "float32"))


def test_gradient_is_that_of_float32_to_the_rounding_of_bf16() -> None:
    """A stream in bf16 rounds more often than one in float32: the error may double, and no more."""
    exact = gradient(towers(low=False), "float32")
    usual, low = (float((gradient(towers(low), "bf16") - exact).norm() / exact.norm()) for low in (False, True))
    assert 0 < usual < 0.05
    assert usual / 4 < low < 2 * usual


def test_both_steps_leave_the_same_gradient() -> None:
    plain, decoupled = towers(low=True), towers(low=True)
    plain_step(plain, RANKS, Precision("bf16", CPU), 3)(batch(), MIX, 7)
    decoupled_step(decoupled, RANKS, Precision("bf16", CPU), 3)(batch(), MIX, 7)
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(decoupled)[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_low_needs_a_low_precision() -> None:
    with pytest.raises(ZeroVLError, match=r"residual_stream low and precision float32 do not go together.*bf16"):
        from_recipe({}, ["train.residual_stream=low"], "demo")
    assert from_recipe({}, ["train.residual_stream=low", "train.precision=bf16"], "demo")
