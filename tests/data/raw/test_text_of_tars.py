"""Captions of tars as editors of Windows write them, and debris in a tar: `prepare` and a stream read both alike."""

from __future__ import annotations

from pathlib import Path

from tests.support import raw_sources
from zerovl.data.raw.tar_captions import caption_a_line, caption_reader, one_caption
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar

RULES = SampleRules("w", caption_reader("", one_caption), 100)


def streamed(path: Path) -> tuple[list[list[str]], dict[str, int]]:
    """Captions of the samples that arrive, and what is lost."""
    lost = Lost()
    with open(path, "rb") as stream:
        return [each.captions for each in read_tar(str(path), stream, RULES, lost)], lost.counts


def prepared(root: Path) -> tuple[list[list[str]], list[str]]:
    """Captions of the samples that are used, and why others are not."""
    manifest = raw_sources.run_prepare(root)
    good = [row["captions"] for row in raw_sources.rows(manifest, "w") if row["error"] is None]
    return good, list(raw_sources.errors(manifest, "w").values())


def test_a_byte_order_mark_is_none_of_the_caption(tmp_path: Path) -> None:
    path = tmp_path / "raw/w/0.tar"
    texts = ["\ufeffa dog", "\ufeff", "\u200b \ufeff", "a \u200bcat"]
    members = [
        member
        for number, text in enumerate(texts)
        for member in ((f"{number}.jpg", raw_sources.jpeg(number)), (f"{number}.txt", text.encode()))
    ]
    raw_sources.write_tar(path, members)
    assert prepared(tmp_path) == ([["a dog"], ["a \u200bcat"]], ["empty caption"] * 2)
    assert streamed(path) == ([["a dog"], ["a \u200bcat"]], {"empty caption": 2})


def test_a_text_in_which_nothing_is_visible_leaves_it_to_the_json(tmp_path: Path) -> None:
    path = tmp_path / "raw/w/0.tar"
    members = [
        member
        for number, text in enumerate(("\ufeff", "\ufeff \n", "\u200b", "", " "))
        for member in (
            (f"{number}.jpg", raw_sources.jpeg(number)),
            (f"{number}.json", b'{"caption": "of the JSON"}'),
            (f"{number}.txt", text.encode()),
        )
    ]
    raw_sources.write_tar(path, members)
    assert prepared(tmp_path) == ([["of the JSON"]] * 5, [])
    assert streamed(path) == ([["of the JSON"]] * 5, {})
    assert caption_a_line("\ufeff\none\n\u200b\ntwo") == ["one", "two"]


def test_debris_in_a_tar_is_no_sample(tmp_path: Path) -> None:
    path = tmp_path / "raw/w/0.tar"
    names = ["./0", "__MACOSX/1", "./a/__MACOSX/2", ".ipynb_checkpoints/3", "./a/.b/4", "a.b/5"]
    members = [
        member
        for number, name in enumerate(names)
        for member in ((f"{name}.jpg", raw_sources.jpeg(number)), (f"{name}.txt", name.encode()))
    ]
    raw_sources.write_tar(path, [*members, ("__MACOSX/0.jpg", b"of macOS"), ("__MACOSX/6.txt", b"of macOS")])
    assert prepared(tmp_path) == ([["./0"], ["a.b/5"]], [])
    assert streamed(path) == ([["./0"], ["a.b/5"]], {})
