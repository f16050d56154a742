"""The rules that look at one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from zerovl.data.validation.measured_rows import REQUIRED, MeasuredRows
from zerovl.data.validation.statistics import EXAMPLES, Integers, Scan
from zerovl.params import ValidateParams

CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
MARKUP_ONLY = r"^(\s|<[^<>]*>|&[#a-zA-Z0-9]+;|https?://\S+|www\.\S+)+$"  # nothing but markup and addresses


def judge_rows(result: Scan, rows: MeasuredRows, settings: ValidateParams) -> None:
    """Count in `result` what breaks the rules that look at one row."""

    def count_broken(rule: str, bad: npt.NDArray[np.bool_], owner: Integers, detail: Callable[[int], str]) -> None:
        findings = result.note(rule)
        findings.count += int(bad.sum())
        for index in np.flatnonzero(bad)[: EXAMPLES - len(findings.examples)].tolist():
            findings.examples.append(rows.example(int(owner[index]), detail(index)))

    def extreme(rule: str, values: npt.NDArray[Any], best: np.ufunc) -> None:
        known = values[~np.isnan(values)]
        if len(known):
            findings = result.note(rule)
            so_far = [] if findings.extreme is None else [findings.extreme]
            findings.extreme = float(best.reduce([best.reduce(known), *so_far]))

    def matches(pattern: str) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = pc.match_substring_regex(rows.text, pattern).to_numpy(zero_copy_only=False)
        return found

    def caption(index: int) -> str:
        return repr(rows.text[index].as_py()[:120])

    def missing(row: int) -> str:
        names = [name for name in REQUIRED if not rows.batch.column(name)[row].is_valid]
        return f"no {', '.join(names) or 'captions'}"

    each = np.arange(len(rows.places))
    extreme("caption_words_min", rows.words, np.minimum)
    extreme("caption_words_max", rows.words, np.maximum)
    extreme("image_side", rows.side, np.minimum)
    extreme("image_aspect", rows.aspect, np.maximum)
    result.note("complete").count += int(rows.nulls.sum() - np.count_nonzero(rows.nulls))  # more than one a row
    count_broken("complete", rows.nulls > 0, each, missing)
    count_broken("captions_not_blank", rows.words == 0, rows.parent, caption)
    count_broken("caption_content", matches(CONTROL) | matches(MARKUP_ONLY) & (rows.words > 0), rows.parent, caption)
    count_broken("caption_words_min", rows.words < settings.min_caption_words, rows.parent, caption)
    count_broken("caption_words_max", rows.words > settings.max_caption_words, rows.parent, caption)
    sides = [rows.batch.column(name) for name in ("width", "height")]
    count_broken("image_side", rows.side < settings.min_side, each, lambda i: f"{sides[0][i]}x{sides[1][i]}")
    count_broken("image_aspect", rows.aspect > settings.max_aspect, each, lambda i: f"{sides[0][i]}x{sides[1][i]}")
