"""The decoupled step against the plain one on a GPU, with dropout, in every precision."""

import pytest
import torch

from tests.support.device_runs import gradient_error, precision_of, projected, ragged_batch
from tests.support.towers import batch, decoupled_step, gradients, model, plain_step, prepared, shallow
from zerovl.distributed.ranks import Ranks
from zerovl.engine.residual_stream import lower_streams
from zerovl.objective.mixup import Mix

pytestmark = pytest.mark.gpu

MIX = Mix("text", 0.4)
# Of a parameter's gradient, by norms. Both steps see the same embeddings and round each micro-batch alike, so they are
# equal to 1e-7 on a CPU; kernels that add in no fixed order may round a 16-bit number to the next one. Another mask of
# dropout in one of the passes is an error of 0.7.
TOLERANCES = {"float32": 2e-5, "bf16": 1e-2, "fp16": 2e-3}


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize(
    ("precision", "low"), [*((name, False) for name in TOLERANCES), ("bf16", True), ("fp16", True)]
)
def test_second_pass_and_gradient(precision: str, low: bool, kept: int, device: torch.device, one_rank: Ranks) -> None:
    """In float32 streams, and in those of the precision."""
    dual = model(depth=2, embed_dim=64, attn_drop_rate=0.1).to(device).train()
    if low:
        lower_streams(dual)
    parts = ragged_batch(device)
    plain = plain_step(dual, one_rank, precision_of(precision, device), 3)
    decoupled = decoupled_step(dual, one_rank, precision_of(precision, device), 3, kept_graphs=kept)

    loss = plain(parts, MIX, 7)
    expected = gradients(dual)
    dual.zero_grad(set_to_none=True)
    with projected(dual) as seen:
        decoupled_loss = decoupled(parts, MIX, 7)
    assert gradient_error(gradients(dual), expected) <= TOLERANCES[precision]
    torch.testing.assert_close(decoupled_loss, loss, rtol=1e-5, atol=1e-5)

    for calls in seen:
        assert len(calls) == 2 * len(parts) - kept
        again = len(parts) - kept  # the last ones keep their graphs; the others come again from the last to the first
        assert all(map(torch.equal, calls[len(parts) :], reversed(calls[:again])))
    with projected(dual) as of_another_step:
        decoupled(parts, MIX, 8)
    for calls, others in zip(seen, of_another_step, strict=True):
        assert not torch.equal(calls[0], others[0])  # dropout is there


@pytest.mark.timeout(300)
def test_compiled_towers(device: torch.device, one_rank: Ranks) -> None:
    """Eager towers are the reference; one length, so that each graph is compiled once."""
    parts, precision = batch(), precision_of("bf16", device)
    expected_loss = plain_step(eager := shallow().to(device).train(), one_rank, precision, 3)(parts, MIX, 7)
    expected = gradients(eager)
    torch._dynamo.reset()
    dual = prepared(shallow(), one_rank, compile=True)
    for kept in (0, 2):
        dual.zero_grad(set_to_none=True)
        with projected(dual) as seen:
            loss = decoupled_step(dual, one_rank, precision, 3, kept_graphs=kept)(parts, MIX, 7)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-2, atol=1e-2)
        assert gradient_error(gradients(dual), expected) <= 4 * TOLERANCES["bf16"]
        for calls in seen:
            assert len(calls) == 2 * len(parts) - kept
            # Compiled twice, with graph and without: on CPUs with the same bits. A difference of rounding (2^-8 of the
            # values) would come from other fusions, a larger one from other masks.
            again = zip(calls[len(parts) :], reversed(calls[: len(parts) - kept]), strict=True)
            differences = [float((second - first).abs().max()) for second, first in again]
            assert max(differences) == 0.0
