"""The page: self-contained, escaped, complete, the same every time."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.fake_world import HOSTILE, FakeEncoder, World
from zerovl.evaluation.metrics import OVERALL, RETRIEVAL, Score, Table, metrics_json
from zerovl.evaluation.report import gallery
from zerovl.evaluation.report.content import Content, read_verdict
from zerovl.evaluation.report.curves import Curves, read_curves
from zerovl.evaluation.report.page import render
from zerovl.evaluation.scores import score, table


class Page(HTMLParser):
    """All tags, attributes and text, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "line", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "path", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of all elements with a class."""
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]


def content(world: World, count: int = 8, **changes: Any) -> Content:
    pool, (trained, untrained) = world.encoded(FakeEncoder(), FakeEncoder(seed=1, blind=True))
    scores = score(pool, trained, untrained, 100, 20, 0)
    fitted, pictures = gallery.fit(
        gallery.choose(pool, trained, scores[OVERALL], count, 0), world.fetch(pool), 2_000_000
    )
    digests = {"evaluation_digest": "e" * 64, "model_digest": "m" * 64}
    metrics = metrics_json({RETRIEVAL: table(pool, scores, 20, 0)}, {"unseen": ["beta"], **digests})
    curves = Curves(
        [(step, 5 / (1 + step / 50)) for step in range(1200)], [(step, step / 4) for step in range(0, 1200, 200)]
    )
    values = {"metrics": metrics, "resamples": 20, "curves": curves, "verdict": None, "gallery": fitted}
    return Content(**{**values, "pictures": pictures, **changes})


def test_page_is_self_contained_escaped_and_whole(world: World) -> None:
    text = render(content(world, count=28))
    page = Page(text)
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text
    assert "url(" not in text
    assert HOSTILE in page.text  # shown as text
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_every_picture_decodes_and_is_marked_without_colour_alone(world: World) -> None:
    made = content(world)
    page = Page(render(made))
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) >= 8 * 5 + 8
    for uri in set(sources):
        head, _, data = (uri or "").partition(",")
        assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    missed = sum(not any(found.right for found in query.found) for query in made.gallery.text_queries)
    right = [query for query in made.gallery.text_queries for found in query.found if found.right]
    tiles = page.of("tile")
    assert sum("right" in (tile["class"] or "").split() for tile in tiles) == len(right) + missed
    assert sum("target" in (tile["class"] or "").split() for tile in tiles) == missed
    assert {uri["alt"].split(":")[0] for tag, uri in page.tags if tag == "img" and uri["alt"]} >= {"right", "wrong"}
    style = files("zerovl.evaluation.report").joinpath("report.css").read_text()
    assert '.tile.right .frame::after { content: "\\2713"' in style
    assert '.tile.wrong .frame::after { content: "\\2717"' in style


def test_one_source_is_one_row(world: World) -> None:
    made = content(world)
    made.metrics["sources"] = {"alpha": made.metrics["sources"]["alpha"]}
    text = render(made)
    assert re.findall(r'<th scope="row">(.*?)</th>', text) == ["alpha"]
    assert "mean over" not in text.partition("<h2>Scores</h2>")[2].partition("</section>")[0]


def test_page_shows_the_figures(world: World) -> None:
    made = content(world)
    page = Page(render(made))
    mean = made.metrics["mean"]
    assert f"{mean['rsum']:.1f}RSUM, mean over 2 sources, of 600" in page.text
    for figure in (mean["rsum_low"], mean["rsum_high"], mean["chance_rsum"], made.metrics["overall"]["rsum"]):
        assert f"{figure:.1f}" in page.text
    rows = re.findall(r'<th scope="row">(.*?)</th>', render(made))
    assert rows == ["mean", "pool", "alpha", "beta (unseen)"]
    assert len(page.of("chart")) == 2
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 2 + 4


def test_a_further_evaluator_has_a_table_with_the_names_that_it_gives(world: World) -> None:
    made = content(world)
    block = {"top1": Score(41.25, 30.5, 50.0), "classes": Score(1200), "<b>odd</b>": Score(None)}
    further = Table(block, {"alpha": {"top1": Score(0.5)}})
    made.metrics["evaluators"] = {"class <i>": further.to_json()}
    text = render(made)
    page = Page(text)
    assert "class <i>" in page.text
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text[text.index("class &lt;i&gt;") :].partition("</section>")[0])
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells == [
        ["Source", "top1", "classes", "&lt;b&gt;odd&lt;/b&gt;"],
        ["All sources", '41.25<span class="range">30.5 to 50</span>', "1,200", "&ndash;"],
        ["alpha", "0.5", "&ndash;", "&ndash;"],
    ]


def test_same_input_same_bytes(world: World) -> None:
    assert render(content(world)) == render(content(world))


def test_page_without_curves_verdict_and_gallery(world: World) -> None:
    page = Page(render(content(world, count=0, curves=Curves([], []))))
    assert "not validated" in page.text
    assert not page.of("chart")
    assert not page.of("tile")


def test_verdicts(world: World) -> None:
    rules = [
        {"name": "broken_fraction", "level": "hard", "bound": "<= 0.01", "value": 0.0, "passed": True},
        {
            "name": "<b>aspect</b>",
            "level": "soft",
            "bound": "<= 8",
            "value": 9.25,
            "passed": False,
            "message": "3 pictures are <i>longer</i>",
        },
    ]
    passed = Page(render(content(world, verdict={"passed": True, "rules": rules})))
    assert "Data validation passed: 1 of 2 rules kept, 1 soft rule broken (a warning)." in passed.text
    assert "<b>aspect</b>: 9.25, bound <= 8 (3 pictures are <i>longer</i>)" in passed.text
    assert passed.of("warned")
    assert not passed.of("good")
    assert '<span class="sign">!</span>' in render(content(world, verdict={"passed": True, "rules": rules}))
    idle = {"name": "drift_rows", "level": "soft", "bound": "<= 0.3", "value": None, "passed": True}
    said = Page(render(content(world, verdict={"passed": True, "rules": [*rules, idle]}))).text
    assert "1 of 3 rules kept, 1 had nothing to check, 1 soft rule broken (a warning)." in said
    kept = Page(render(content(world, verdict={"passed": True, "rules": [rules[0], idle]})))
    assert "Data validation passed: 1 of 2 rules kept, 1 had nothing to check." in kept.text
    assert kept.of("good")
    lacking = {"sources_without": {"valid": ["posters"]}}
    said = Page(render(content(world, verdict={"passed": True, "rules": rules, **lacking}))).text
    assert "Without a valid split, so in no score here: posters." in said
    broken = {**rules[0], "value": 0.25, "passed": False}
    failed = Page(render(content(world, verdict={"passed": False, "rules": [broken, rules[1]]})))
    assert (
        "Data validation failed: 0 of 2 rules kept, 1 hard rule broken, 1 soft rule broken (a warning)." in failed.text
    )
    assert failed.of("bad")


def test_untrained_zero_has_no_ratio(world: World) -> None:
    made = content(world)
    made.metrics["mean"]["rsum_over_untrained"] = None
    assert "\N{EN DASH}" in Page(render(made)).text


def test_curves_are_read_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_curves(path) == Curves([], [])
    rows = [
        {"step": 0, "loss": 4.5},
        {"step": 1, "loss": 4.0, "valid_rsum": 12.5, "valid_chance_rsum": 4.0, "source": "alpha"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 2, "lo')
    assert read_curves(path) == Curves([(0, 4.5), (1, 4.0)], [(1, 12.5)], [(1, 4.0)])


def test_a_verdict_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_verdict(tmp_path / "none.json") is None
    (tmp_path / "torn.json").write_text('{"passed": tr')
    assert read_verdict(tmp_path / "torn.json") is None


def test_the_score_on_the_way_has_its_chance_and_is_told_from_the_headline(world: World) -> None:
    curves = Curves([(0, 5.0)], [(100, 50.0), (224, 370.0)], [(100, 79.0), (224, 79.0)])
    text = render(content(world, curves=curves))
    assert "RSUM during training, last 370.0, chance 79.0" in text
    assert 'class="chance"' in text
    assert "dashed: chance" in text
    assert "each picture with its first caption alone" in text
    without = render(content(world, curves=Curves([(0, 5.0)], [])))
    assert "first caption alone" not in without
    assert 'class="chance"' not in without


def test_commands_in_warnings_are_code_and_nothing_of_them_is_markup(world: World) -> None:
    said = ("too few to learn; `zerovl recipe auto` writes settings", "a name with <b> and ` alone")
    text = render(content(world, warnings=said))
    assert "<li>too few to learn; <code>zerovl recipe auto</code> writes settings</li>" in text
    assert "<li>a name with &lt;b&gt; and ` alone</li>" in text
