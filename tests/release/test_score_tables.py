"""All metrics of a release as a table: the headline first, the others in the order in which people count."""

from __future__ import annotations

from zerovl.release import score_tables


def first_column(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()]


def test_rows_are_in_the_order_in_which_people_count() -> None:
    """The records of a store have names by their letters: i2t_r1, i2t_r10, i2t_r5."""
    names = ["i2t_r1", "i2t_r10", "i2t_r5", "images", "rsum", "t2i_r10", "t2i_r5"]
    block = dict.fromkeys(names, 1.0)
    sources = {"board": block, "photo": block}
    table = {"overall": {"top10": 1.0, "top5": 1.0}, "sources": {}}
    shown = score_tables.of({"mean": block, "overall": block, "sources": sources, "evaluators": {"pets": table}})
    scores, pets = shown.split("\n\n")
    assert first_column(scores) == ["SCORES", "rsum", "i2t_r1", "i2t_r5", "i2t_r10", "images", "t2i_r5", "t2i_r10"]
    assert first_column(pets) == ["pets", "top5", "top10"]
    alone = score_tables.of({"mean": block, "overall": block, "sources": {"board": block}})
    assert alone.splitlines()[0].split() == ["SCORES", "board"]
