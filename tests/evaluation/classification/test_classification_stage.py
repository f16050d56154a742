"""Sets with classes in a real evaluation: metrics.json, page, terminal, card, provenance and gate have them."""

from __future__ import annotations

import hashlib
import json
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.fake_world import png
from tests.support.labelled_sets import COLOURS as COLOURS_OF_TARS
from tests.support.labelled_sets import shade, write_shards
from tests.support.real_world import make_model, make_project, settings
from zerovl import log
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification import paper_probe
from zerovl.evaluation.classification.linear_probe import probe
from zerovl.evaluation.classification.zero_shot import TOP1
from zerovl.evaluation.evaluators import EVALUATORS, evaluators_of
from zerovl.evaluation.items import read_items
from zerovl.evaluation.metrics import find, known_names
from zerovl.images import decode_rgb
from zerovl.model.encoder import Encoder
from zerovl.params import Params
from zerovl.release import model_card, provenance
from zerovl.release.gate import NoHolder, judge
from zerovl.stages import evaluate
from zerovl.workspace import Workspace

CLASSES = ("red <b>", "green", "blue")
UNSEEN = "never <i> seen"  # a class without a picture
COLOURS = ((230, 10, 20), (20, 220, 10), (10, 30, 240))


def write_drawn(folder: Path) -> Path:
    """Three classes of four pictures; the name of one is HTML, one of its pictures is broken."""
    for name, colour in zip(CLASSES, COLOURS, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            (folder / name / f"{number}.png").write_bytes(png((*colour[:2], colour[2] + number), side=40))
    (folder / CLASSES[0] / "3.png").write_bytes(b"")
    return folder


def with_sets(root: Path, *overrides: str) -> Params:
    drawn = f"{{name: drawn, folder: {root / 'drawn'}, templates: ['a {{}}', '{{c}} it is']}}"
    tars = f"{{name: tars, shards: {root / 'tars'}, measures: [zero_shot, linear_probe, paper_probe_augmented]}}"
    return settings(root, f"evaluate.classification=[{drawn}, {tars}]", *overrides)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any], dict[str, Any], str]:
    """A project evaluated on two sets: its metrics.json, its details.json and what was said."""
    workspace = make_project(tmp_path_factory.mktemp("project"), sources=("alpha",))
    make_model(workspace, seed=1)
    write_drawn(workspace.root / "drawn")
    write_shards(workspace.root / "tars", ("test", "train"))
    with open(workspace.root / "tars" / "classnames.txt", "a") as file:
        file.write(f"{UNSEEN}\n")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log.logger(), "warning", said.append)
        patch.setattr(paper_probe, "EPOCHS", 3)
        evaluate.run(with_sets(workspace.root), workspace)
    metrics, details = (
        json.loads(path.read_text()) for path in (workspace.evaluation_metrics, workspace.evaluation_details)
    )
    return workspace, metrics, details, "\n".join(said)


def test_metrics_are_those_of_embedding_one_by_one(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    workspace, metrics, details, said = evaluated
    assert list(metrics["evaluators"]) == ["drawn", "tars"]
    table = metrics["evaluators"]["drawn"]
    assert table["sources"] == {}
    model, folder = Encoder.load(workspace.model), workspace.root / "drawn"
    names = sorted(CLASSES)
    texts = torch.stack([model.encode_text([f"a {name}", f"{name} it is"]).mean(0) for name in names])
    files = [(label, path) for label, name in enumerate(names) for path in sorted((folder / name).iterdir())]
    files = [(label, path) for label, path in files if path.stat().st_size]
    scores = model.encode_image([path for _, path in files]) @ torch.nn.functional.normalize(texts, dim=1).T
    right = [int(row.argmax() == label) for (label, _), row in zip(files, scores, strict=True)]
    block = table["overall"]
    assert block["top1"] == pytest.approx(100 * sum(right) / 11, abs=1e-3)
    assert block["top1_low"] <= block["top1"] <= block["top1_high"]
    assert "top5" not in block
    assert [block[name] for name in ("pictures", "classes", "broken")] == [11, 3, 1]
    assert block["chance_top1"] == pytest.approx(100 / 3, abs=1e-3)
    assert {row["class"]: row["pictures"] for row in details["drawn"]["classes"]} == {
        "blue": 4,
        "green": 4,
        "red <b>": 3,
    }
    assert details["drawn"]["broken"] == [{"picture": "red <b>/3.png", "reason": "empty file"}]
    assert "drawn: 1 of 12 pictures cannot be read: red <b>/3.png (empty file)" in said
    wrong = sum(pair["pictures"] for pair in details["drawn"]["confusions"])
    assert wrong == 11 - sum(right)
    assert details["tars"]["templates"] == ["{c} ."]
    assert metrics["evaluators"]["tars"]["overall"]["top5_low"] <= metrics["evaluators"]["tars"]["overall"]["top5"]


def test_a_class_without_a_picture_is_a_candidate_and_said(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    workspace, metrics, details, said = evaluated
    block = metrics["evaluators"]["tars"]["overall"]
    assert (block["classes"], block["chance_top1"]) == (8, 12.5)
    shares = {row["class"]: row[TOP1] for row in details["tars"]["classes"]}
    assert len(shares) == 7
    assert block["mean_class"] == pytest.approx(fmean(shares.values()), abs=1e-2)
    assert details["tars"]["without_pictures"] == [UNSEEN]
    sentence = f"1 class has no picture that can be read ({UNSEEN}): pictures may still be taken for it"
    assert f"tars: {sentence}" in said
    assert escape(sentence) in workspace.evaluation_page.read_text()
    card = model_card.render(with_sets(workspace.root), metrics, {}, {}, usage="", details=details)
    assert r"(never \<i\> seen): pictures may still be taken for it" in card
    assert "without_pictures" not in details["drawn"]


def test_page_terminal_card_and_provenance_have_it(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    workspace, metrics, details, _ = evaluated
    page = workspace.evaluation_page.read_text()
    assert "<h2>drawn</h2>" in page
    assert '<th scope="row">All pictures</th>' in page
    assert "red &lt;b&gt;/3.png" in page
    assert "red <b>" not in page
    assert page.count("By class, the lowest first") == 2
    assert "drawn" in evaluate.summary(metrics)
    assert "### tars" in model_card.render(with_sets(workspace.root), metrics, {}, {}, usage="", details={})
    sets = provenance.classification_sets(workspace.evaluation_details)
    assert sets["drawn"] == {"digest": details["drawn"]["digest"], "templates": ["a {}", "{c} it is"]}
    assert provenance.classification_sets(workspace.root / "absent.json") == {}


def test_what_is_kept_of_each_picture_gives_the_metrics(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    workspace, metrics, _, _ = evaluated
    rows = read_items(workspace.evaluation_items).to_pylist()
    for name, table in metrics["evaluators"].items():
        block = table["overall"]
        kept = {row["metric"] for row in rows if row["evaluator"] == name}
        assert kept == {metric.removesuffix("_low") for metric in block if metric.endswith("_low")}
        for metric in kept:
            its = [row for row in rows if (row["evaluator"], row["metric"]) == (name, metric)]
            assert len(its) == len({(row["item"], row["group"]) for row in its}) == block["pictures"]
            groups: dict[int, list[float]] = {}
            for row in its:
                groups.setdefault(row["group"], []).append(row["hits"])
            assert 100 * fmean(map(fmean, groups.values())) == pytest.approx(block[metric], abs=1e-3)
            assert len(groups) == ({"drawn": 3, "tars": 7}[name] if metric == "mean_class" else 1)
    first = hashlib.sha256((workspace.root / "drawn" / "blue" / "0.png").read_bytes()).hexdigest()[:16]
    assert first in {row["item"] for row in rows}


def test_a_linear_probe_learns_from_the_set_s_own_split(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    workspace, metrics, details, _ = evaluated
    block = metrics["evaluators"]["tars"]["overall"]
    assert "probe_top1" not in metrics["evaluators"]["drawn"]["overall"]
    assert details["tars"]["linear_probe"]["trained_on"] == "21 pictures of train"
    assert "fitted to 21 pictures of train" in workspace.evaluation_page.read_text()

    model = Encoder.load(workspace.model)
    pictures = [png(shade(colour, number)) for number in range(3) for colour in COLOURS_OF_TARS]
    # test/ and train/ hold these pictures, tar by tar; read in the batches of the evaluation: rounding is the same
    order = np.concatenate([np.arange(0, 21, 2), np.arange(1, 21, 2)])
    pixels = torch.stack([model.transform(decode_rgb(pictures[row])) for row in order])
    its = torch.cat([model.tower_features(part) for part in pixels.split(8)]), order % 7
    found = probe(its[0], its[1], its, seed=0)
    assert block["probe_top1"] == pytest.approx(100 * (found.predicted == its[1]).mean(), abs=1e-3)
    assert details["tars"]["linear_probe"]["penalties"] == list(found.penalties)
    assert block["probe_top1_low"] <= block["probe_top1"] <= block["probe_top1_high"]
    assert find(metrics, "tars.untrained_probe_top1") == block["untrained_probe_top1"]


def test_the_paper_s_probe_learns_from_views_of_the_set_s_own_split(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    _, metrics, details, _ = evaluated
    block = metrics["evaluators"]["tars"]["overall"]
    name = "paper_probe_augmented"
    assert 0 <= block[f"{name}_top1_low"] <= block[f"{name}_top1"] <= block[f"{name}_top1_high"] <= 100
    assert details["tars"][name] == {"trained_on": "21 pictures of train"}


def test_features_once_give_the_embeddings_of_encode_pixels(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str],
) -> None:
    model = Encoder.load(evaluated[0].model)
    side = model.transform.image_size
    pixels = torch.randint(256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.embed_features(model.tower_features(pixels)), model.encode_pixels(pixels))
    assert model.temperature == pytest.approx(float(model.model.temperature.detach()))


@pytest.mark.parametrize(("bound", "passed"), [("drawn.chance_top1: 33", True), ("tars.top1: 101", False)])
def test_the_gate_takes_a_bound_by_the_set_s_name(
    evaluated: tuple[Workspace, dict[str, Any], dict[str, Any], str], bound: str, passed: bool
) -> None:
    workspace, metrics, _, _ = evaluated
    params = settings(workspace.root, "register.gate.min_rsum=0", f"register.gate.min_metrics={{{bound}}}")
    assert judge(metrics, NoHolder("first"), params.register_.gate).passed == passed
    assert {"drawn.top1", "drawn.mean_class", "tars.top5", "tars.untrained_top1"} <= set(known_names(metrics))
    assert find(metrics, "drawn.top1") == metrics["evaluators"]["drawn"]["overall"]["top1"]


def test_a_probe_is_refused_where_no_class_has_two_pictures(tmp_path: Path) -> None:
    write_drawn(tmp_path / "drawn")
    for name in CLASSES:
        for number in range(3):
            (tmp_path / "drawn" / name / f"{number}.png").unlink()
    given = f"{{name: drawn, folder: {tmp_path / 'drawn'}, measures: [linear_probe]}}"
    with pytest.raises(ZeroVLError, match="drawn: no class has 2 pictures that can be read, and a linear probe is"):
        evaluators_of(settings(tmp_path, f"evaluate.classification=[{given}]").evaluate)


def test_a_set_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "drawn" / "yellow").mkdir(parents=True)
    (tmp_path / "drawn" / "black").mkdir()
    with pytest.raises(ZeroVLError, match="drawn: no class has a picture that can be read"):
        evaluators_of(with_sets(tmp_path).evaluate)
    write_drawn(tmp_path / "drawn")
    write_shards(tmp_path / "tars", ("test", "train"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EVALUATORS, "drawn", EVALUATORS["retrieval"])
        with pytest.raises(ZeroVLError, match="drawn is the name of another evaluator"):
            evaluators_of(with_sets(tmp_path).evaluate)
