"""The demo's data: learnable, unseen in validation, and the same on every draw."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support import raw_sources
from tests.support.paths import ROOT
from zerovl.data.demo import draw as demo
from zerovl.data.demo import pictures, scenes
from zerovl.data.demo.scenes import Scene
from zerovl.errors import ZeroVLError
from zerovl.params import DemoParams
from zerovl.params_file import load as load_params

SMALL = DemoParams(train_pairs=30, valid_pairs=10)
CAPTIONS = {
    "poster": scenes.poster_captions,
    "board": scenes.board_captions,
    "photo": scenes.photo_captions,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    demo.draw(SMALL, root / "raw")
    return root


def test_same_settings_same_bytes(drawn: Path, tmp_path: Path) -> None:
    demo.draw(SMALL, tmp_path / "raw")
    again = raw_sources.all_bytes(tmp_path / "raw")
    assert again == raw_sources.all_bytes(drawn / "raw")
    demo.draw(SMALL.model_copy(update={"seed": 1}), tmp_path / "raw")
    other = raw_sources.all_bytes(tmp_path / "raw")
    assert other.keys() == again.keys()
    assert other["poster/train/000000.jpg"] != again["poster/train/000000.jpg"]


def test_drawn_once(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    demo.draw(SMALL, drawn / "raw")
    assert "already drawn" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_write_webdataset", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.draw(SMALL, tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/mine", "train", 1)
    with pytest.raises(ZeroVLError, match="has mine, which is not the demo's"):
        demo.draw(SMALL, tmp_path / "raw")
    assert (tmp_path / "raw/mine/train/0.jpg").exists()


def test_prepare_reads_all_three_layouts(drawn: Path) -> None:
    manifest = raw_sources.run_prepare(drawn, shard_samples=100, tokenizer_vocab=600)
    counts = {key: (info.pairs, info.broken) for key, info in manifest.splits.items()}
    assert counts == {(s, split): (n, 0) for s in CAPTIONS for split, n in (("train", 30), ("valid", 10))}
    rows = [row for key in manifest.splits for row in raw_sources.rows(manifest, *key)]
    assert len({row["key"] for row in rows}) == len({row["sha256"] for row in rows}) == 120
    assert {(row["width"], row["height"], row["recoded"]) for row in rows} == {(64, 64, None)}
    assert {len(row["captions"]) for row in rows} == {1, 2, 3}


def test_layout_of_each_source(drawn: Path) -> None:
    assert (drawn / "raw/poster/train_anno.csv").read_text().startswith("image,image_id,caption,caption_id\n")
    images = json.loads((drawn / "raw/board/dataset_board.json").read_text())["images"]
    assert {image["split"] for image in images} == {"train", "restval", "test"}
    with tarfile.open(drawn / "raw/photo/valid/00001.tar") as tar:
        assert tar.getnames()[:3] == ["000010000.jpg", "000010000.json", "000010000.txt"]


def test_validation_combinations_are_unseen() -> None:
    chosen = demo.combinations(DemoParams())
    seen = {scene for (_, split), scenes in chosen.items() if split == "train" for scene in split}
    unseen = [scene for (_, split), scenes in chosen.items() if split == "valid" for scene in scenes]
    assert len(unseen) == len(set(unseen)) == 600
    assert not seen & set(unseen)
    for split in chosen.values():  # every value of every attribute is there to be learned, and to be tested
        assert {scene.shape for scene in split} == set(scenes.SHAPES)
        assert {scene.colour for scene in split} == set(scenes.COLOURS)
        assert {(scene.size, scene.count, scene.texture) for scene in split} == {
            (size, count, texture) for size in scenes.SIZES for count in scenes.COUNTS for texture in scenes.TEXTURES
        }


def test_more_training_pictures_than_combinations() -> None:
    chosen = demo.combinations(DemoParams(train_pairs=20_000))
    assert len(chosen["board", "train"]) == 20_000
    assert not set(chosen["board", "train"]) & set(chosen["poster", "valid"])
    with pytest.raises(ZeroVLError, match=r"demo\.valid_pairs is 2000: .* set it to 1706 or less"):
        demo.combinations(DemoParams(valid_pairs=2000))


@pytest.mark.parametrize("source", CAPTIONS)
def test_captions_name_every_attribute(source: str) -> None:
    """No caption fits two scenes: what is said identifies the combination."""
    said: dict[str, Scene] = {}
    for scene in scenes.all_scenes():
        for seed in range(3):
            captions = CAPTIONS[source](scene, random.Random(seed))
            assert 1 <= len(captions) <= 3
            for caption in captions:
                assert said.setdefault(caption, scene) == scene
                assert scene.colour in caption
                assert scene.shape in caption
                assert len(re.findall(r"\w+", caption)) <= 20
    assert len(said) > len(scenes.all_scenes())


@pytest.mark.parametrize("style", pictures.STYLES)
def test_pictures_show_every_attribute(style: str) -> None:
    """Changing one attribute changes the picture well beyond what another draw of the same scene does."""
    base = Scene("square", "red", "large", 2, "top left", "solid")
    changes = {
        "shape": "triangle", "colour": "blue", "size": "small", "count": 4, "position": "bottom right",
        "texture": "hollow",
    }  # fmt: skip

    def pixels(**changed: object) -> np.ndarray:
        scene = dataclasses.replace(base, **changed)  # type: ignore[arg-type]
        return np.asarray(pictures.STYLES[style](scene, 64, random.Random(5)), int)

    for name, value in changes.items():
        assert np.abs(pixels(**{name: value}) - pixels()).mean() > 2, name


@pytest.mark.parametrize("side", [32, 64, 100])
def test_side(side: int) -> None:
    for style in pictures.STYLES.values():
        picture = style(scenes.all_scenes()[17], side, random.Random(0))
        assert (picture.size, picture.mode) == ((side, side), "RGB")


def test_dvc_stage_makes_what_the_pipeline_reads() -> None:
    stage = yaml.safe_load((ROOT / "data/demo/dvc.yaml").read_text())["stages"]["draw"]
    assert (ROOT / "data/demo" / stage["wdir"]).resolve() == ROOT
    assert stage["outs"] == [load_params(ROOT / "params.yaml").data.raw]
    assert stage["deps"] == ["reports/code/demo-data.json"]
