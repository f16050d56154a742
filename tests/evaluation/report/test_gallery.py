"""The gallery's choice, and its picture: frames, names, the same every time."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.fake_world import FakeEncoder, World
from zerovl.evaluation.metrics import OVERALL, RETRIEVAL, metrics_json
from zerovl.evaluation.report import drawing, gallery
from zerovl.evaluation.report.drawing import GREEN, RED, Row, Tile, draw
from zerovl.evaluation.report.gallery_picture import draw_gallery
from zerovl.evaluation.scores import score, table


def test_gallery_groups_and_ranks(world: World) -> None:
    pool, (embeddings,) = world.encoded(FakeEncoder())
    scores = score(pool, embeddings, embeddings, 100, 20, 0)[OVERALL]
    chosen = gallery.choose(pool, embeddings, scores, 8, 0)
    for queries in (chosen.text_queries, chosen.image_queries):
        assert [query.group for query in queries] == ["drawn"] * 4 + ["best"] * 2 + ["worst"] * 2
    assert {query.source for query in chosen.text_queries if query.group == "best"} == {"alpha", "beta"}
    worst = [query.place for query in chosen.text_queries if query.group == "worst"]
    assert worst[0] == scores.result.t2i.expected_place.max()
    captions = [query.caption for query in chosen.text_queries]
    assert len(set(captions)) == 8
    for query in chosen.text_queries:
        values = [found.score for found in query.found]
        assert values == sorted(values, reverse=True)
        assert query.caption in [pool.captions[row] for row in np.flatnonzero(pool.caption_image == query.image)]
        assert [found.image for found in query.found if found.right] in ([], [query.image])
        if query.place == 1:
            assert query.found[0].right
    for image_query in chosen.image_queries:
        assert len({found.text for found in image_query.found}) == len(image_query.found) == 5
        assert all(
            found.right == (found.text in image_query.captions) for found in image_query.found if found.copies == 1
        )


def test_pictures_keep_to_the_budget() -> None:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(400, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG", quality=95)
    found = tuple(gallery.FoundPicture(image, image == 0, 0.5) for image in range(5))
    queries = tuple(gallery.TextQuery("drawn", "noise", "alpha", 0, 1.0, found) for _ in range(3))
    whole = gallery.Gallery(queries, ())
    kept, small = gallery.fit(whole, lambda image: out.getvalue(), 40_000)
    assert kept == whole
    assert sum(map(len, small.values())) <= 40_000
    kept, none = gallery.fit(whole, lambda image: out.getvalue(), 1000)
    assert kept == gallery.Gallery((), ())
    assert none == {}


def test_png_has_the_frames_and_is_not_cut_off(tmp_path: Path) -> None:
    tiles = [Tile(Image.new("RGB", (20, 10), "blue"), "right", "1"), Tile(Image.new("RGB", (9, 30)), "wrong", "2")]
    path = tmp_path / "deep" / "gallery.png"
    draw([Row("a query " * 60, "note", tiles * 4), Row("last", "", tiles)], "Title", "subtitle", path)
    image = Image.open(path).convert("RGB")
    assert image.width == 1200
    pixels = np.asarray(image)
    for colour in (GREEN, RED):
        rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        assert (np.abs(pixels.astype(int) - rgb).max(2) <= 2).sum() > 500
    edges = np.concatenate([pixels[:20].reshape(-1, 3), pixels[-20:].reshape(-1, 3), pixels[:, -20:].reshape(-1, 3)])
    assert len(np.unique(edges, axis=0)) == 1  # nothing touches the border


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3  0.31", r"3  0\.31"),
        ("short.jpg", r"short\.jpg"),
        ("a-folder-with-a-long-name.tar:000001234.jpg", r"a-folder\S+\.\.\.\S*0001234\.jpg"),
        ("two\r\nlines.jpg", r"two lines\.jpg"),
        ("\u4e00" * 60, r"\u4e00+\.\.\.\u4e00+"),
    ],
)
def test_a_name_below_a_picture_is_cut_in_its_middle(text: str, shown: str) -> None:
    pen, font = ImageDraw.Draw(Image.new("L", (1, 1))), drawing._font(30, bold=False)
    fitted = drawing._fit(pen, text, font, 400)
    assert re.fullmatch(shown, fitted)
    assert pen.textlength(fitted, font) <= 400


def test_names_have_a_line_of_their_own_and_a_row_without_a_title_no_blank_band(tmp_path: Path) -> None:
    def drawn(name: str, title: str) -> Any:
        tile = Tile(Image.new("RGB", (9, 9), "blue"), "none", "1  0.31", name)
        draw([Row(title, "", [tile])], "query", "1 of 2 pictures", tmp_path / "a.png")
        return np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)

    bare, named, titled = drawn("", ""), drawn("a.jpg", ""), drawn("", "title")
    assert len(named) - len(bare) == drawing._NAME_LINE
    assert len(titled) - len(bare) == round(24 * 1.35) + 14
    blue = (np.abs(bare - np.array([0, 0, 255])).max(2) <= 2).any(1)
    written = (bare.max(2) < 150).any(1) & ~blue  # the head; what stands below the tile comes after it
    first = int(blue.argmax())
    assert first - int(np.flatnonzero(written[:first]).max()) < 60


def test_png_is_the_same_every_time(world: World, tmp_path: Path) -> None:
    pool, (embeddings,) = world.encoded(FakeEncoder())
    scores = score(pool, embeddings, embeddings, 100, 20, 0)
    metrics = metrics_json({RETRIEVAL: table(pool, scores, 20, 0)}, {})
    for name in ("a.png", "b.png"):
        chosen = gallery.choose(pool, embeddings, scores[OVERALL], 8, 0)
        draw_gallery(chosen, world.fetch(pool), metrics, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
