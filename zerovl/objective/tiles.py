"""The two sweeps over the logits that the contrastive loss is made of, tile by tile.

Shapes: b local rows (images), B columns (texts of all ranks), D embedding width, R x C a tile of logits.

`Tiles` is what `tiled.contrastive_loss` needs; `TorchTiles` runs anywhere, `triton_tiles.TritonTiles` on CUDA. The
loops themselves, `logit_tiles` and `weighted_sums`, serve `sigmoid` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zerovl.objective.targets import Targets

# Measured on a CPU: 512 to 2048 are equally fast on one thread within 8%, and with several threads on a busy machine
# each operation waits for the slowest, so few and large ones win. Two buffers of 1024 are 8 MiB, and find room in what
# the towers' passes have left; those of 2048 are 32 MiB, which the heap of a CPU takes from the system each time.
TILE = 1024
# On a GPU a tile should fill all multiprocessors: 1024 blocks of 128 x 128, 64 MiB a buffer.
CUDA_TILE = 4096
# Logits up to this size need no shift: exp(40) and exp(-40) and their sums are normal float32.
UNSHIFTED_BOUND = 40.0


class Tiles(Protocol):
    """S = scale x image @ all_text.T, (b, B), seen through its softmaxes and never held whole."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which `image` and `all_text` are to be given."""

    def log_sum_exps(self, image: Tensor, all_text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Log-sum-exps of the rows (b,) and, over these rows only, of the columns (B,); float32 or float64."""

    def gradients(
        self,
        image: Tensor,
        all_text: Tensor,
        scale: Tensor,
        row_lse: Tensor,
        column_lse: Tensor,
        targets: Targets,
        first_column: int,
    ) -> tuple[Tensor, Tensor]:
        """(P + Q - 2Y) @ all_text, (b, D), and (P + Q - 2Y).T @ image, (B, D); float32 or float64.

        P = exp(S - row_lse) and Q = exp(S - column_lse) are the softmaxes, Y (b, B) the targets: row i belongs
        to column first_column + i, and to its partner's.
        """


@dataclass(frozen=True)
class TorchTiles:
    """Plain torch, any device. At most two tiles are alive; 4 products of 2 b B D operations in all."""

    dtype: torch.dtype  # float32 or float64
    tile: int = TILE

    def log_sum_exps(self, image: Tensor, all_text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Tiles`."""
        row_lse = image.new_full((len(image),), -torch.inf)
        column_lse = image.new_full((len(all_text),), -torch.inf)
        exponentials = _exponentials(image, all_text, scale)
        for rows, columns, logits, spare in logit_tiles(image, all_text, scale, self.tile):
            of_rows, of_columns = exponentials.log_sums(logits, spare)  # (R,), (C,); one product serves both
            row_lse[rows] = torch.logaddexp(row_lse[rows], of_rows)
            column_lse[columns] = torch.logaddexp(column_lse[columns], of_columns)
        return row_lse, column_lse

    def gradients(
        self,
        image: Tensor,
        all_text: Tensor,
        scale: Tensor,
        row_lse: Tensor,
        column_lse: Tensor,
        targets: Targets,
        first_column: int,
    ) -> tuple[Tensor, Tensor]:
        """As in `Tiles`."""
        exponentials = _exponentials(image, all_text, scale)
        weights = (
            (rows, columns, exponentials.softmaxes(logits, spare, row_lse[rows], column_lse[columns]))  # P + Q
            for rows, columns, logits, spare in logit_tiles(image, all_text, scale, self.tile)
        )
        return weighted_sums(image, all_text, targets, first_column, weights)


def logit_tiles(
    image: Tensor, all_text: Tensor, scale: Tensor, tile: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Give (rows, columns, logits, spare), the last two (R, C): scale x image[rows] @ all_text[columns].T, and room.

    Both may be overwritten; their memory is used again for the next tile.
    """
    buffers = _Buffers(image, all_text, tile)
    for rows in spans(len(image), tile):
        scaled = image[rows] * scale
        for columns in spans(len(all_text), tile):
            logits, spare = buffers.tiles(rows, columns)
            torch.mm(scaled, all_text[columns].T, out=logits)
            yield rows, columns, logits, spare


def weighted_sums(
    image: Tensor,
    all_text: Tensor,
    targets: Targets,
    first_column: int,
    weights: Iterable[tuple[slice, slice, Tensor]],
) -> tuple[Tensor, Tensor]:
    """(V - 2Y) @ all_text, (b, D), and (V - 2Y).T @ image, (B, D), for V (b, B) given as (rows, columns, tile)."""
    own = slice(first_column, first_column + len(image))
    grad_image = -2 * targets.mixed(all_text[own])  # -2 Y @ all_text
    grad_all_text = torch.zeros_like(all_text)
    grad_all_text[own] = -2 * targets.mixed(image)  # -2 Y.T @ image
    for rows, columns, tile in weights:
        grad_image[rows].addmm_(tile, all_text[columns])
        grad_all_text[columns].addmm_(tile.T, image[rows])
    return grad_image, grad_all_text


class _Buffers:
    """Memory of two tiles, used again for each: no allocation inside the loops."""

    def __init__(self, image: Tensor, all_text: Tensor, tile: int) -> None:
        size = min(tile, len(image)) * min(tile, len(all_text))
        self._pair = image.new_empty(2, size)

    def tiles(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        shape = rows.stop - rows.start, columns.stop - columns.start
        first, second = self._pair[:, : shape[0] * shape[1]].unbind(0)
        return first.view(shape), second.view(shape)


class _Exponentials(Protocol):
    """What is done to a tile of logits (R, C); both it and `spare` (R, C) may be overwritten."""

    def log_sums(self, logits: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        """Log-sum-exps of rows (R,) and columns (C,)."""

    def softmaxes(self, logits: Tensor, spare: Tensor, row_lse: Tensor, column_lse: Tensor) -> Tensor:
        """exp(logits - row_lse) + exp(logits - column_lse), (R, C)."""


class _Shifted:
    """Any logits: each direction is shifted by its own maximum, or by its log-sum-exp."""

    def log_sums(self, logits: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        top = logits.amax(dim=1, keepdim=True)  # (R, 1)
        of_rows = torch.sub(logits, top, out=spare).exp_().sum(dim=1).log_().add_(top.squeeze(1))
        top = logits.amax(dim=0)  # (C,)
        return of_rows, logits.sub_(top).exp_().sum(dim=0).log_().add_(top)

    def softmaxes(self, logits: Tensor, spare: Tensor, row_lse: Tensor, column_lse: Tensor) -> Tensor:
        torch.sub(logits, row_lse[:, None], out=spare).exp_()
        return spare.add_(logits.sub_(column_lse).exp_())


class _Unshifted:
    """Small logits: one exponential serves both directions."""

    def log_sums(self, logits: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        exponentials = logits.exp_()
        return exponentials.sum(dim=1).log_(), exponentials.sum(dim=0).log_()

    def softmaxes(self, logits: Tensor, spare: Tensor, row_lse: Tensor, column_lse: Tensor) -> Tensor:
        torch.add(row_lse.neg().exp_()[:, None], column_lse.neg().exp_(), out=spare)
        return logits.exp_().mul_(spare)


def _exponentials(image: Tensor, all_text: Tensor, scale: Tensor) -> _Exponentials:
    """No logit is larger than scale x the longest image x the longest text (Cauchy and Schwarz).

    Whether that is small is asked on the CPU alone: elsewhere the host would wait for the device to answer.
    """
    if not image.is_cpu:
        return _Shifted()
    longest = [torch.linalg.vector_norm(embeddings, dim=1).max() for embeddings in (image, all_text)]
    bound = float(longest[0] * longest[1] * scale.abs())
    return _Unshifted() if bound <= UNSHIFTED_BOUND else _Shifted()


def spans(length: int, tile: int) -> list[slice]:
    """Cuts range(length) into slices of `tile`, the last one shorter."""
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]
