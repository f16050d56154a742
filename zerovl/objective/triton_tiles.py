"""The tiled loss on CUDA: Triton makes the logits and their softmaxes, cuBLAS the products with embeddings.

Forward: one launch for each `SUPER_TILE` rows against all columns. A block of 128 x 128 logits lives in
registers, serves both directions, and leaves 128 + 128 partial log-sum-exps, which torch reduces: B / 128
floats a row and 64 a column, so memory stays O(B x D). Atomics are not used: the same inputs give the
same bits.

Backward: for each super-tile of 8192 x 8192 one kernel makes the logits again and writes P + Q - 2Y in the
inputs' dtype; two plain matrix products take it to the gradients, in float32. Accumulators of D = 512 to
1024 columns do not fit the registers beside a tile, so a fully fused kernel would make the logits once
more for each direction (5 products, as flash attention does) or add with atomics. Writing the weights
costs 6 bytes a logit (written once, read twice) against 2 D operations saved: cheaper from D = 128 up.
8192 rows x D = 512 make 128 output tiles of 128 x 256, one wave of an H100.

Paper estimate, not a measurement: at B = 65536, D = 512, bf16 on one H100 a product is 4.4 TFLOP; at 450
TFLOP/s inside the Triton kernels and 600 in cuBLAS, forward 10 ms and backward 25 ms, plus 9 ms of traffic
if nothing overlaps. Extra memory there: 268 MB of float32 gradients, 134 MB of weights, 134 MB of results.
Eight products, as Inf-CLIP's `ring` makes, take 59 to 78 ms at the same rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from zerovl.objective.targets import Targets
from zerovl.objective.tiles import spans
from zerovl.objective.triton_kernels import log_sum_exp_partials, softmax_weights

SUPER_TILE = 8192
BLOCK = 128
# Three stages of two blocks of 128 x 128 bytes: 96 KiB of shared memory, within the 99 KiB of every
# GPU from Ampere on, and twice within the 228 KiB of Hopper.
BLOCK_BYTES = 128
STAGES = 3
WARPS = 8
REGISTERS = 128  # a thread, so that two programs of 256 threads share a multiprocessor: one's exponentials beside
# the other's products. Compiled for sm_90: 125 and 128 registers, 0 and 16 bytes spilled.
OLDEST_CAPABILITY = (8, 0)
# P + Q - 2Y lies in [-2, 2], and a softmax over 65536 columns near 1.5e-5, where float16 has few
# digits left: a power of two moves it into the middle of the range.
FLOAT16_GAIN = 2.0**14


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether these kernels are the fast way for embeddings of this dtype on this device.

    Float32 only where torch may use TF32: at full precision cuBLAS makes logits faster than Triton can.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return False
    if dtype == torch.float32:
        return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
    return dtype in (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TritonTiles:
    """`Tiles` in Triton; products of 16-bit embeddings on tensor cores, accumulated in float32."""

    dtype: torch.dtype  # bfloat16, float16 or float32
    precision: str = "tf32"  # of float32 products: "tf32" or "ieee"
    super_tile: int = SUPER_TILE

    def log_sum_exps(self, image: Tensor, all_text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Tiles`: one launch a super-tile of rows, its partial sums reduced by torch."""
        image, all_text = image.contiguous(), all_text.contiguous()
        row_lse = scale.new_empty(len(image))
        column_lse = scale.new_full((len(all_text),), -torch.inf)
        column_blocks = triton.cdiv(len(all_text), BLOCK)
        with torch.cuda.device_of(image):
            for rows in spans(len(image), self.super_tile):
                block = image[rows]
                row_partials = scale.new_empty(column_blocks, len(block))
                column_partials = scale.new_empty(triton.cdiv(len(block), BLOCK), len(all_text))
                log_sum_exp_partials[self._grid(block, all_text)](
                    block,
                    all_text,
                    scale,
                    row_partials,
                    column_partials,
                    len(block),
                    len(all_text),
                    **self.launch_options(image),
                )
                row_lse[rows] = torch.logsumexp(row_partials, dim=0)
                column_lse = torch.logaddexp(column_lse, torch.logsumexp(column_partials, dim=0))
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
        """As in `Tiles`: one launch and two matrix products a super-tile."""
        image, all_text = image.contiguous(), all_text.contiguous()
        grad_image = torch.zeros_like(image, dtype=scale.dtype)
        grad_all_text = torch.zeros_like(all_text, dtype=scale.dtype)
        partner = targets.partner
        if partner is None:
            partner = torch.arange(len(image), device=image.device)
        gain = FLOAT16_GAIN if self.dtype == torch.float16 else 1.0
        height, width = min(self.super_tile, len(image)), min(self.super_tile, len(all_text))
        # Rows a multiple of 8 elements apart, as tensor cores want them.
        buffer = image.new_empty(height, triton.cdiv(width, 8) * 8)
        with torch.cuda.device_of(image):
            for rows in spans(len(image), self.super_tile):
                for columns in spans(len(all_text), self.super_tile):
                    block, texts = image[rows], all_text[columns]
                    weights = buffer[: len(block), : len(texts)]
                    softmax_weights[self._grid(block, texts)](
                        block,
                        texts,
                        scale,
                        row_lse[rows],
                        column_lse[columns],
                        partner[rows],
                        targets.weight,
                        gain,
                        weights,
                        rows.start,
                        first_column - columns.start,
                        len(block),
                        len(texts),
                        weights.stride(0),
                        **self.launch_options(image),
                    )
                    _add_product(grad_image[rows], weights, texts, 1 / gain)
                    _add_product(grad_all_text[columns], weights.T, block, 1 / gain)
        return grad_image, grad_all_text

    def _grid(self, rows: Tensor, columns: Tensor) -> tuple[int, int]:
        return triton.cdiv(len(rows), BLOCK), triton.cdiv(len(columns), BLOCK)

    def launch_options(self, embeddings: Tensor) -> dict[str, Any]:
        """Compile-time constants and options of both kernels for embeddings of this width, (any, D)."""
        return {
            "WIDTH": embeddings.shape[1],
            "BLOCK_ROWS": BLOCK,
            "BLOCK_COLUMNS": BLOCK,
            "BLOCK_WIDTH": BLOCK_BYTES // embeddings.element_size(),
            "PRECISION": self.precision,
            "num_warps": WARPS,
            "num_stages": STAGES,
            "maxnreg": REGISTERS,
            "enable_fp_fusion": True,
        }


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: float) -> None:
    """total += factor x left @ right, in place; products of 16-bit numbers are summed in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, alpha=factor)
    elif left.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype), alpha=factor)
    else:  # the interpreter: torch has no such product on a CPU
        total.addmm_(left.to(total.dtype), right.to(total.dtype), alpha=factor)
