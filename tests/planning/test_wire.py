"""What `zerovl plan` says that ranks send to each other: the bytes of a real step, and those of sharded models."""

import pytest
import torch

from tests.support.tiny_project import recipe
from tests.support.towers import batch, decoupled_step, model
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.objective.mixup import Mix
from zerovl.planning import plan
from zerovl.planning.timed_steps import Repeated
from zerovl.sizing import shape_only_model
from zerovl.sizing.footprint import BatchLayout
from zerovl.sizing.shape_only_model import Parameters

CPU = torch.device("cpu")


class Counting(Repeated):
    """Counts what a rank of W receives."""

    def __init__(self, world_size: int) -> None:
        super().__init__(world_size)
        self.gathered = self.scattered = self.summed = 0

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        self.gathered += (self.world_size - 1) * local.nbytes
        return super().gather(local)

    def reduce_scatter(self, partial: torch.Tensor) -> torch.Tensor:
        kept = super().reduce_scatter(partial)
        self.scattered += (self.world_size - 1) * kept.nbytes
        return kept

    def start_sum(self, local: torch.Tensor):  # type: ignore[no-untyped-def]
        self.summed += 2 * (self.world_size - 1) * local.nbytes // self.world_size
        return super().start_sum(local)


def test_bytes_on_the_wire_are_those_that_a_step_sends() -> None:
    dual, world = model(), 4
    counting = Counting(world)
    decoupled_step(dual, Ranks(0, world, CPU, counting), Precision("float32", CPU), seed=0)(batch(), Mix(), 0)
    params = recipe("model.embed_dim=8")
    found = plan.wire(params, shape_only_model.count(dual), BatchLayout(world * 24, world, 6, 0))
    assert found.embeddings + found.log_sum_exps == counting.gathered
    assert found.loss_gradient == counting.scattered
    assert found.gradients == pytest.approx(counting.summed, abs=8)
    assert plan.wire(params, shape_only_model.count(dual), BatchLayout(24, 1, 6, 0)).total == 0


def test_weights_that_are_gathered_in_16_bits_are_half_the_bytes() -> None:
    parameters, layout = Parameters(40, 60, 0, learned=100, buffers=0), BatchLayout(4 * 24, 4, 6, 0)

    def gathered(*overrides: str) -> int:
        found = plan.wire(recipe("machine.shard_model=true", *overrides), parameters, layout)
        return found.gradients - 3 * 100 * 4 // 4  # without the sum of the gradients, which stays float32

    assert gathered() == 3 * 3 * 4 * 100 * 4 // 4  # three passes of four micro-batches, from three other ranks
    assert gathered("machine.shard_gathers=low") == gathered()  # of float32
    assert gathered("machine.shard_gathers=low", "train.precision=bf16") == gathered() // 2


def test_within_nodes_weights_stay_there_and_parts_of_the_gradient_are_summed() -> None:
    parameters, layout = Parameters(40, 60, 0, learned=100, buffers=0), BatchLayout(8 * 24, 8, 6, 0)
    split = recipe("machine.shard_model=true", "machine.shard_within=node")
    found = plan.wire(split, parameters, layout, 4).gradients
    inside = (12 + 1) * 100 * 4 * 3 // 4  # twelve passes and the gradient, from three other ranks of the node
    assert found == inside + 2 * (100 // 4) * 4 // 2  # and a quarter of the gradient with the other node
    assert plan.wire(split, parameters, layout, 8) == plan.wire(recipe("machine.shard_model=true"), parameters, layout)
