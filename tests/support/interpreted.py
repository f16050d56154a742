"""Triton's kernels on the CPU, against float64: prints {case: largest relative errors}.

A program of its own, because TRITON_INTERPRET must be set before anything imports triton.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from tests.support.pairs import embeddings, equal_identities, mixed_targets, relative_errors, tiled_and_dense
from zerovl.objective.targets import Targets
from zerovl.objective.tiles import TorchTiles
from zerovl.objective.triton_tiles import TritonTiles

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dot_of_bfloat16(dot: Callable[..., TensorHandle]) -> Callable[..., TensorHandle]:
    """The interpreter's product takes the bits of bfloat16 for integers (Triton 3.9); give it float32 instead."""

    def widened(self: InterpreterBuilder, left: TensorHandle, right: TensorHandle, *rest: Any) -> TensorHandle:
        pair = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (left, right))
        return dot(self, *pair, *rest)

    return widened


def errors_of_loss(
    batch: int,
    width: int,
    dtype: str,
    temperature: float,
    mixed: bool,
    super_tile: int,
    noise: float = 2.0,
    equal: bool = False,
) -> list[float]:
    image, text = embeddings(batch, DTYPES[dtype], width, noise)
    tiles = TritonTiles(DTYPES[dtype], "ieee", super_tile)
    targets = mixed_targets(batch) if mixed else Targets()
    if equal:
        targets = replace(targets, identities=equal_identities(batch))
    return relative_errors(*tiled_and_dense(tiles, image, text, temperature, targets))


def errors_of_second_rank(rows: int, super_tile: int) -> list[float]:
    """Rows of rank 1 of 2 against all columns: log-sum-exps and gradients, next to torch's tiles in float64."""
    image, text = (embedding.detach() for embedding in embeddings(2 * rows, torch.float32))
    targets = mixed_targets(rows)

    def sweeps(tiles: TorchTiles | TritonTiles) -> list[torch.Tensor]:
        own, columns = image[rows:].to(tiles.dtype), text.to(tiles.dtype)
        scale = torch.tensor(1 / 0.05, dtype=tiles.dtype)
        lse = tiles.log_sum_exps(own, columns, scale)
        return [*lse, *tiles.gradients(own, columns, scale, *lse, targets, first_column=rows)]

    found = sweeps(TritonTiles(torch.float32, "ieee", super_tile))
    return relative_errors(found, sweeps(TorchTiles(torch.float64)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    InterpreterBuilder.create_dot = dot_of_bfloat16(InterpreterBuilder.create_dot)
    results = {name: errors_of_loss(**case) for name, case in json.loads(sys.argv[1]).items()}
    results["second rank"] = errors_of_second_rank(193, 128)
    print(json.dumps(results))
