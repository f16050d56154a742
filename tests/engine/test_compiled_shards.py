"""Towers that are compiled and split over two ranks: the gradients of split ones, and one cut of a graph a block."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.rank_groups import run_group
from tests.support.sharded_towers import one_step
from tests.support.towers import decoupled_step
from zerovl.distributed.ranks import Ranks

KIND = partial(decoupled_step, kept_graphs=1)  # graphs with a backward and without, one of them kept


def on_ranks(ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Gradients of eager and of traced towers, and why graphs were cut."""
    eager = one_step(ranks, KIND)
    compile_in_place = nn.Module.compile
    nn.Module.compile = lambda module, options: compile_in_place(module, backend="aot_eager")  # type: ignore[method-assign, assignment]
    counters = torch._dynamo.utils.counters
    counters.clear()
    traced = one_step(ranks, KIND, compile=True)
    return eager, traced, list(counters["graph_break"])


@pytest.fixture(scope="module")
def group() -> list[Any]:
    """Without Inductor, whose kernels `test_options` compiles."""
    return run_group(2, on_ranks)


def test_gradients_are_those_of_eager_towers(group: list[Any]) -> None:
    for eager, traced, _ in group:
        assert traced.keys() == eager.keys()
        assert [name for name in eager if not torch.equal(traced[name], eager[name])] == []


def test_graphs_are_cut_at_the_hooks_that_gather_and_nowhere_else(group: list[Any]) -> None:
    for _, _, breaks in group:
        assert len(breaks) == 1
        assert "skipping FSDP hooks" in breaks[0]
