"""Writes the tables of `benchmarks/README.md` from the result files: `python -m benchmarks.page`.

A table stands between `<!-- NAME -->` and `<!-- end NAME -->`, with NAME a key of `TABLES`; all else is
written by hand and stays.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.common import HERE, RESULTS
from zerovl.files import atomic_write

PAGE = HERE / "README.md"
TABLES: dict[str, Callable[[Path], str]] = {
    "loss time": tables.loss_time,
    "loss memory": tables.loss_memory,
    "loss stability": tables.loss_stability,
    "gpu loss": tables.gpu_loss,
    "gpu parity": tables.gpu_parity,
    "step time": tables.step_time,
    "step memory": tables.step_memory,
    "options": tables.options,
    "plan": tables.plan,
    "gpu steps": tables.gpu_steps,
    "gpu memory": tables.gpu_memory,
    "train": tables.train,
    "ablation": tables.ablation,
}


def render(text: str, results: Path) -> str:
    """The page with the results' tables in it; raises `ValueError` where a table has no place or a place no table."""
    places = re.findall(r"<!-- end (.+?) -->", text)
    if sorted(places) != sorted(TABLES):
        raise ValueError(f"the page has places for {sorted(places)}, the tables are {sorted(TABLES)}")
    for name, make in TABLES.items():
        head, _, rest = text.partition(f"<!-- {name} -->")
        _, _, tail = rest.partition(f"<!-- end {name} -->")
        text = f"{head}<!-- {name} -->\n{make(results)}\n<!-- end {name} -->{tail}"
    return text


def update_page(page: Path = PAGE, results: Path = RESULTS) -> None:
    text = render(page.read_text(encoding="utf-8"), results)
    with atomic_write(page, "w") as file:
        file.write(text)


if __name__ == "__main__":
    update_page()
    sys.exit(0)
