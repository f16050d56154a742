"""The three layouts of a set with classes, and every way in which one is refused."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
import torch

from tests.support.fake_world import FakeEncoder, caption, png
from tests.support.labelled_sets import COLOURS, folder_name, shade, write_folder, write_shards, write_tar
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.encoding import encode_pictures
from zerovl.evaluation.classification.listing import listing_digest
from zerovl.evaluation.classification.sets import (
    LabelledSet,
    read_set,
    read_templates,
    require_learnable,
    with_one_picture,
    without_pictures,
)
from zerovl.params import ClassificationParams
from zerovl.params_file import from_recipe

NAMES = tuple(caption(colour) for colour in COLOURS)


def bytes_by_class(found: LabelledSet) -> set[tuple[str, bytes]]:
    """Return name of the class and content of each picture."""
    pairs = set()
    for labelled in found.pictures:
        its = labelled.picture
        with open(its.path, "rb") as file:
            file.seek(its.offset)
            pairs.add((found.classes[labelled.label], file.read() if its.size is None else file.read(its.size)))
    return pairs


def read(kind: str, path: Path, **more: str) -> LabelledSet:
    return read_set(ClassificationParams.model_validate({"name": "set", kind: str(path), **more}))


def write_csv(folder: Path) -> Path:
    write_folder(folder)
    rows = [f"{folder_name(colour)}/{number}.png,{caption(colour)}" for number in range(3) for colour in COLOURS]
    (folder / "set.csv").write_text("\n".join(["image,class", *rows]) + "\n")
    return folder / "set.csv"


@pytest.mark.parametrize(("kind", "write"), [("folder", write_folder), ("csv", write_csv), ("shards", write_shards)])
def test_all_layouts_give_the_same_pictures_with_the_same_classes(
    kind: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    found = read(kind, write(tmp_path / "set"))
    assert sorted(found.classes) == sorted(NAMES)
    assert len(found.pictures) == 21
    assert bytes_by_class(found) == {(caption(it), png(shade(it, number))) for it in COLOURS for number in range(3)}
    assert found.templates == (("{c} .",) if kind == "shards" else ())
    assert read(kind, tmp_path / "set" / ("set.csv" if kind == "csv" else "")) == found


def test_tars_stand_in_the_order_of_their_numbers_and_training_pictures_apart(tmp_path: Path) -> None:
    write_shards(tmp_path, ("test", "train"))
    for number in (10, 9):
        write_tar(tmp_path / "test" / f"{number}.tar", {f"x{number}.png": b"x", f"x{number}.cls": b"3\n"})
    (tmp_path / "test" / "nshards.txt").write_text("4\n")
    found = read("shards", tmp_path)
    assert [labelled.name for labelled in found.pictures][-2:] == ["test/9.tar:x9", "test/10.tar:x10"]
    assert len(found.training) == 21
    assert all(labelled.name.startswith("train/") for labelled in found.training)


def test_names_of_classes_come_from_a_file_where_there_is_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "set")
    (tmp_path / "set" / "classnames.txt").write_text("a\nb\nc\nd\ne\nf\nthe seventh one\n")
    (tmp_path / "other.txt").write_text("\n".join("ABCDEFG"))
    assert read("folder", tmp_path / "set").classes == ("a", "b", "c", "d", "e", "f", "the seventh one")
    assert read("folder", tmp_path / "set", classnames=str(tmp_path / "other.txt")).classes == tuple("ABCDEFG")


def test_a_csv_of_windows_and_of_macos_names_the_same_pictures(tmp_path: Path) -> None:
    for name in ("cats/1.png", "dogs/" + normalize("NFD", "é.png")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "set.csv").write_text("image,class\ncats\\1.png,cat\ndogs\\é.png,dog\n", encoding="utf-8")
    found = read("csv", tmp_path / "set.csv")
    assert all(Path(each.picture.path).is_file() for each in found.pictures)
    assert [found.classes[each.label] for each in found.pictures] == ["cat", "dog"]


def test_debris_is_no_picture_of_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "set")
    its, before = ClassificationParams(name="set", folder=str(tmp_path / "set")), read("folder", tmp_path / "set")
    digest = listing_digest(its)
    for name in (
        "__MACOSX/a/0.png",
        f"{folder_name(COLOURS[0])}/__MACOSX/0.png",
        f"{folder_name(COLOURS[0])}/.x/0.png",
    ):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(b"of macOS")
    assert read("folder", tmp_path / "set") == before
    assert listing_digest(its) == digest


def test_a_header_in_capitals_is_that_header(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("Class,IMAGE\nx,a.png\ny,b.png\n")
    found = read("csv", tmp_path / "set.csv")
    assert [(each.name, found.classes[each.label]) for each in found.pictures] == [("a.png", "x"), ("b.png", "y")]


def test_a_class_without_a_picture_is_a_candidate_in_every_layout(tmp_path: Path) -> None:
    write_folder(tmp_path / "folders")
    (tmp_path / "folders" / "nothing_here").mkdir()
    (tmp_path / "set.csv").write_text("image,class\na.png,x\nb.png,y\n")
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    write_shards(tmp_path / "tars")
    with open(tmp_path / "tars" / "classnames.txt", "a") as file:
        file.write("another\n")
    for found, name in (
        (read("folder", tmp_path / "folders"), "nothing here"),
        (read("csv", tmp_path / "set.csv", classnames=str(tmp_path / "names.txt")), "z"),
        (read("shards", tmp_path / "tars"), "another"),
    ):
        assert name in found.classes
        assert without_pictures(found.classes, [its.label for its in found.pictures]) == [name]


def test_what_a_layer_cannot_learn_is_named() -> None:
    classes = ("a", "b", "c", "d")
    require_learnable("set", classes, [0, 0, 2, 2], None)  # of b and d there is nothing to ask either
    require_learnable("set", classes, [0, 2], [0, 0, 2, 2, 3, 3])
    with pytest.raises(ZeroVLError, match=r"class 'b' \(and 1 other classes\) has pictures in test and none .* train"):
        require_learnable("set", classes, [0, 1, 3], [0, 0])
    require_learnable("set", classes, [0, 2], [0, 0, 2])  # from one picture too
    require_learnable("set", classes, [0, 0, 2], None)
    with pytest.raises(ZeroVLError, match="set: no class has 2 pictures that can be read"):
        require_learnable("set", classes, [0, 2], None)
    assert with_one_picture(classes, [0, 0, 2, 3, 3]) == ["c"]


def test_empty_lines_between_templates_are_none(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}.\r\n\r\n a drawing of a {}.\n\n")
    assert read_templates(path) == ("a photo of a {}.", "a drawing of a {}.")
    path.write_text("\n\n")
    with pytest.raises(ZeroVLError, match=r"templates\.txt: has no template; write one a line"):
        read_templates(path)


def too_few_names(folder: Path) -> None:
    (folder / "classnames.txt").write_text("one\ntwo\n")


def empty_line(folder: Path) -> None:
    (folder / "classnames.txt").write_text("one\n\ntwo\n")


def no_picture(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


def only_one(folder: Path) -> None:
    for colour in COLOURS[1:]:
        for path in sorted((folder / folder_name(colour)).iterdir(), reverse=True):
            path.unlink()
        (folder / folder_name(colour)).rmdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_picture, "set: no class has a picture that can be read"),
        (too_few_names, "7 folders and 2 names of classes"),
        (empty_line, "classnames.txt: line 2 is empty"),
        (only_one, "1 classes, at least 2"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(spoil: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    spoil(write_folder(tmp_path / "set"))
    with pytest.raises(ZeroVLError, match=words):
        read("folder", tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na.png,x\n", "no column class"),
        ("image,class\na.png,x\n../b.png,y\n", "line 3: file name '../b.png' leaves its folder"),
        ("image,class\na.png,\n", "line 2: no class"),
        ("image,class\na.png,x\nb.png,wrong\n", "line 3: class 'wrong' is not one of the 3 names"),
        ("image,class\n", "no class has a picture that can be read"),
    ],
)
def test_a_csv_that_cannot_be_used_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(text)
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    with pytest.raises(ZeroVLError, match=words):
        read("csv", tmp_path / "set.csv", classnames=str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": b"x", "a.cls": b"7"}, "2.tar:a is of class 7, but there are 7 names"),
        ({"a.png": b"x", "a.cls": b"cat"}, "'a.cls' holds 'cat'"),
        ({"a.png": b"x"}, "sample 'a' has no class"),
        ({"a.cls": b"1"}, "sample 'a' has no picture"),
        ({"a.png": b"x", "a.jpg": b"x", "a.cls": b"1"}, "two pictures with the key 'a'"),
    ],
)
def test_a_tar_that_cannot_be_used_is_named(members: dict[str, bytes], words: str, tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_tar(tmp_path / "test" / "2.tar", members)
    (tmp_path / "test" / "nshards.txt").write_text("3")
    with pytest.raises(ZeroVLError, match=words):
        read("shards", tmp_path)


def test_missing_cut_and_damaged_tars_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    tar = tmp_path / "test" / "1.tar"
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        second = opened.getmembers()[1].offset
    for content, words in (
        (whole[:700], "1.tar: (truncated tar|not a tar)"),
        (b"rubbish" * 200, "1.tar: not a tar"),
        (whole[:second], "1.tar: truncated tar: no end mark"),
        (whole[: second + 100], "1.tar: (truncated tar|not a tar)"),
        (whole[:second] + b"rubbish" * 2000, "1.tar: (damaged tar|not a tar)"),
    ):
        tar.write_bytes(content)
        with pytest.raises(ZeroVLError, match=words):
            read("shards", tmp_path)
    tar.unlink()
    with pytest.raises(ZeroVLError, match=r"nshards.txt: says '2' tars, found 1"):
        read("shards", tmp_path)
    with pytest.raises(ZeroVLError, match="no such folder"):
        read("shards", tmp_path / "absent")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{name: a, folder: x, csv: y}", "a needs one of folder, csv and shards, found folder and csv"),
        ("{name: a}", "a needs one of folder, csv and shards, found none of them"),
        ("{name: retrieval, folder: x}", "name retrieval is that of another evaluator"),
        ("{name: a.b, folder: x}", "'a.b' is not accepted"),
        ("{name: a, folder: x}, {name: a, folder: y}", "names of classification must differ"),
        ("{name: a, folder: x, templates: ['a photo']}", "template 'a photo' has no place for the class"),
        ("{name: a, folder: x, templates: imagenet}", "'imagenet' is not accepted: give one of auto, name, photo"),
    ],
)
def test_settings_that_cannot_be_used_are_named(given: str, words: str) -> None:
    with pytest.raises(ZeroVLError) as caught:
        from_recipe({}, [f"evaluate.classification=[{given}]"], "test")
    assert words in str(caught.value)


def test_broken_pictures_are_left_out_with_their_reason_and_change_the_digest(tmp_path: Path) -> None:
    model = FakeEncoder()
    pictures = [labelled.picture for labelled in read("folder", write_folder(tmp_path / "set")).pictures]
    whole = encode_pictures(pictures, model.transform, [model.encode_pixels, lambda pixels: pixels.flatten(1)], 4)
    assert [output.shape for output in whole.outputs] == [(21, 32), (21, 48)]
    assert whole.rows.tolist() == list(range(21))
    Path(pictures[3].path).write_bytes(b"no picture")
    Path(pictures[20].path).unlink()
    rest = encode_pictures(pictures, model.transform, [model.encode_pixels], 4)
    assert rest.rows.tolist() == [row for row in range(20) if row != 3]
    assert rest.broken == ((3, "not a picture"), (20, "No such file or directory"))
    assert rest.digest != whole.digest
    torch.testing.assert_close(rest.outputs[0], whole.outputs[0][rest.rows])
