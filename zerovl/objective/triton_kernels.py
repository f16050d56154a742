"""Triton kernels of the tiled loss: a tile of logits is made in registers and only its reductions or weights leave.

No inline assembly, so that TRITON_INTERPRET=1 runs them on a CPU. Logits are kept in base 2 (the
hardware's exponential) inside a kernel, log-sum-exps in base e outside.

Shapes: R rows (images) and C columns (texts) of this launch, D = WIDTH; one program makes a block of
BLOCK_ROWS x BLOCK_COLUMNS logits. Program axis 0, the fastest, counts row blocks: the images of a launch
stay in the level 2 cache while the texts stream by once.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
OUTSIDE = tl.constexpr(-1.0e30)  # the logit of a row or column that does not exist; finite, so no inf - inf


@triton.jit
def _logits(
    image,  # (R, WIDTH), contiguous
    text,  # (C, WIDTH), contiguous
    scale,  # (1,) float32
    rows,
    columns,
    row_count,
    column_count,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """scale x log2(e) x image[rows] @ text[columns].T, float32; rows and columns past the end repeat the last one."""
    row = tl.minimum(rows, row_count - 1).to(tl.int64)
    column = tl.minimum(columns, column_count - 1).to(tl.int64)
    depth = tl.arange(0, BLOCK_WIDTH)
    image_block = image + row[:, None] * WIDTH + depth[None, :]
    text_block = text + column[None, :] * WIDTH + depth[:, None]
    product = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
    for start in range(0, WIDTH, BLOCK_WIDTH):
        inside = depth < WIDTH - start
        left = tl.load(image_block + start, mask=inside[None, :], other=0.0)
        right = tl.load(text_block + start, mask=inside[:, None], other=0.0)
        product = tl.dot(left, right, product, input_precision=PRECISION)
    return product * (tl.load(scale) * LOG2_E)


@triton.jit
def log_sum_exp_partials(
    image,
    text,
    scale,
    row_partials,  # (column blocks, R) float32: log-sum-exp of each row over one block of columns
    column_partials,  # (row blocks, C) float32
    row_count,
    column_count,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Log-sum-exps of one block of logits, along its rows and along its columns."""
    row_block = tl.program_id(0)
    column_block = tl.program_id(1)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    logits = _logits(
        image,
        text,
        scale,
        rows,
        columns,
        row_count,
        column_count,
        WIDTH,
        BLOCK_ROWS,
        BLOCK_COLUMNS,
        BLOCK_WIDTH,
        PRECISION,
    )
    row_exists = rows < row_count
    column_exists = columns < column_count
    logits = tl.where(row_exists[:, None] & column_exists[None, :], logits, OUTSIDE)

    top = tl.max(logits, axis=1)
    row_lse = (top + tl.log2(tl.sum(tl.exp2(logits - top[:, None]), axis=1))) * LN_2
    tl.store(row_partials + column_block.to(tl.int64) * row_count + rows, row_lse, mask=row_exists)

    top = tl.max(logits, axis=0)
    column_lse = (top + tl.log2(tl.sum(tl.exp2(logits - top[None, :]), axis=0))) * LN_2
    tl.store(column_partials + row_block.to(tl.int64) * column_count + columns, column_lse, mask=column_exists)


@triton.jit(do_not_specialize=["first_column"])
def softmax_weights(
    image,
    text,
    scale,
    row_lse,  # (R,) float32
    column_lse,  # (C,) float32
    partner,  # (R,) int64: the row whose column is the second target
    share,  # of the row's own column in the targets; 1 - share is the partner's
    gain,
    weights,  # (R, C), out, rows `stride` apart
    first_row,  # number of row 0 of this launch among the rows that `partner` counts
    first_column,  # column of row number 0, which may lie outside this launch
    row_count,
    column_count,
    stride,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """gain x (P + Q - 2Y). Subtracting the targets before rounding keeps the digits of a well-fitted pair."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    logits = _logits(
        image,
        text,
        scale,
        rows,
        columns,
        row_count,
        column_count,
        WIDTH,
        BLOCK_ROWS,
        BLOCK_COLUMNS,
        BLOCK_WIDTH,
        PRECISION,
    )
    row_exists = rows < row_count
    column_exists = columns < column_count
    of_rows = tl.load(row_lse + rows, mask=row_exists, other=-OUTSIDE) * LOG2_E
    of_columns = tl.load(column_lse + columns, mask=column_exists, other=-OUTSIDE) * LOG2_E
    total = tl.exp2(logits - of_rows[:, None]) + tl.exp2(logits - of_columns[None, :])

    own = first_column + first_row + rows
    other = first_column + tl.load(partner + rows, mask=row_exists, other=0)
    total -= tl.where(columns[None, :] == own[:, None], 2.0 * share, 0.0)
    total -= tl.where(columns[None, :] == other[:, None], 2.0 * (1.0 - share), 0.0)
    place = weights + (rows[:, None] * stride + columns[None, :])  # below 2^31: a super-tile
    tl.store(place, (total * gain).to(weights.dtype.element_ty), mask=row_exists[:, None] & column_exists[None, :])
