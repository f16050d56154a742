"""`zerovl classify` with a fake model, and with every broken input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.fake_world import FakeEncoder
from zerovl import cli, log
from zerovl.commands import classify
from zerovl.commands.picture_files import picture_files
from zerovl.errors import ZeroVLError

CLASSES = "colour 250 0 0, colour 0 250 0,colour 0 0 250"


def test_each_picture_has_its_classes_and_broken_ones_are_named(
    encoder: FakeEncoder, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup()
    classify.run("model", CLASSES, picture_folder, "{}", 2, False)
    printed = capsys.readouterr()
    assert "1 picture of 4 cannot be read:" in printed.err
    assert "broken.jpg (not a picture)" in printed.err
    found = {Path(path).name: text for path, text in (line.split("  ", 1) for line in printed.out.splitlines())}
    assert list(found) == ["blue.png", "green.PNG", "red.png"]
    for name, best in (("red", "250 0 0"), ("green", "0 250 0"), ("blue", "0 0 250")):
        assert next(text for path, text in found.items() if path.startswith(name)).startswith(f"colour {best} ")
    assert all(text.count("%") == 2 for text in found.values())

    (tmp_path / "names.txt").write_text(CLASSES.replace(",", "\n"))
    classify.run("model", str(tmp_path / "names.txt"), picture_folder, "{}", 9, True)
    said = json.loads(capsys.readouterr().out)
    assert said["broken"] == [{"picture": str(picture_folder / "broken.jpg"), "reason": "not a picture"}]
    assert len(said["pictures"]) == 3
    texts = encoder.encode_text([name.strip() for name in CLASSES.split(",")])
    for picture in said["pictures"]:
        path = Path(picture["picture"])
        image = encoder.encode_pixels(encoder.transform(Image.open(path).convert("RGB"))[None])
        expected = sorted((image @ texts.T / encoder.temperature).softmax(1)[0].tolist(), reverse=True)
        assert [found["probability"] for found in picture["classes"]] == pytest.approx(expected, abs=1e-5)


def test_the_command_line_reaches_it(
    encoder: FakeEncoder, picture_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", "model", "--classes", CLASSES, "--images", str(picture_folder), "--templates", "{}", "--json"]
    assert cli.main(words) == 0
    assert all(len(picture["classes"]) == 1 for picture in json.loads(capsys.readouterr().out)["pictures"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("names.csv", "id,name\n0,cat\n1,dog\n", "is a table of 2 columns; write the names alone, one a line"),
        ("names.tsv", "0\tcat\n1\tdog\n", "is a table of 2 columns"),
        ("names.txt", "cat, dog, horse\n", "has one line, with commas between names; write one name a line"),
    ],
)
def test_a_file_that_has_not_one_name_a_line_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ZeroVLError, match=f"{name}: {said}"):
        classify.read_classes(str(tmp_path / name))
    (tmp_path / name).write_text("tench, Tinca tinca\nhen\n")
    assert classify.read_classes(str(tmp_path / name)) == ("tench, Tinca tinca", "hen")


def test_debris_among_the_pictures_is_left_out(encoder: FakeEncoder, picture_folder: Path) -> None:
    before = picture_files(picture_folder)
    for name in ("._red.png", "__MACOSX/red.png", "more/.trash/red.png"):
        (picture_folder / name).parent.mkdir(exist_ok=True)
        (picture_folder / name).write_bytes(b"of macOS")
    assert picture_files(picture_folder) == before


def test_many_classes_are_not_taken_for_a_file_name() -> None:
    given = [f"class number {number}" for number in range(200)]
    assert classify.read_classes(",".join(given)) == tuple(given)


@pytest.mark.parametrize(
    ("classes", "name", "templates", "top", "words"),
    [
        ("a,b", "pictures", "photo", 0, "--top 0"),
        ("a", "pictures", "photo", 1, "--classes 'a': 2 names or more"),
        ("a,,b", "pictures", "photo", 1, "--classes 'a,,b': 2 names or more, none of them empty"),
        ("a,b,a", "pictures", "photo", 1, "'a' stands twice"),
        ("absent.txt", "pictures", "photo", 1, "absent.txt: cannot be read"),
        ("absent.csv", "pictures", "photo", 1, "absent.csv: cannot be read"),
        ("a,b", "pictures", "imagenet", 1, "template 'imagenet' has no place for the class"),
        ("a,b", "pictures", "absent.txt", 1, "absent.txt: cannot be read"),
        ("a,b", "nowhere", "photo", 1, "nowhere: no such folder"),
        ("a,b", "empty", "photo", 1, "no pictures in it"),
        ("a,b", "bad", "photo", 1, "none of the 1 pictures can be read"),
    ],
)
def test_what_is_wrong_is_named(
    encoder: FakeEncoder, picture_folder: Path, classes: str, name: str, templates: str, top: int, words: str
) -> None:
    parent = picture_folder.parent
    (parent / "empty").mkdir()
    (parent / "bad").mkdir()
    (parent / "bad" / "a.tif").write_bytes(b"")
    with pytest.raises(ZeroVLError) as caught:
        classify.run("model", classes, parent / name, templates, top, False)
    assert words in str(caught.value)
