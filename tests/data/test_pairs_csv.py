"""The reader of pairs that `prepare` and `embed` share."""

from pathlib import Path

import pytest

from zerovl.data.pairs_csv import PairRow, read_rows
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.layout import Source
from zerovl.data.raw.layouts import LAYOUTS
from zerovl.errors import ZeroVLError
from zerovl.indexing.pairs import each_row

HEAD = "image,image_id,caption,caption_id\n"


def test_rows_have_their_lines_and_columns_come_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('caption_id, caption ,extra,image,image_id\n1,"two\nlines",,a.jpg,7\n\n2,short\n3,,x,b.jpg,8\n')
    assert list(read_rows(path, strict=True)) == [
        PairRow(2, 3, "a.jpg", "7", "two\nlines", "1"),
        PairRow(5, 5, problem="row has 2 cells, the header has 5"),
        PairRow(6, 6, "b.jpg", "8", "", "3"),
    ]
    assert [row.lines for row in read_rows(path, strict=True)] == ["2-3", "5", "6"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,caption\n", "no column image_id, caption_id; found image, caption; expected image, image_id,"),
        (HEAD.encode() + b"a.jpg,1,caf\xe9,1\n", "line 2, byte 45 (0xe9): not UTF-8; save it as UTF-8, for example:"),
        (None, "cannot be read (No such file or directory); check the file and its rights"),
    ],
)
def test_prepare_and_embed_say_the_same_of_a_file_as_a_whole(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "train_anno.csv"
    if content is not None:
        path.write_bytes(content)
    source = Source("a", str(tmp_path), LAYOUTS["zerovl"], ("train",), "test")
    said = []
    for read in (
        lambda: list(each_row(path)),
        lambda: source.layout.read(source, "train", 100, FetchedFiles(tmp_path / "fetched")),
    ):
        with pytest.raises(ZeroVLError) as error:
            read()
        said.append(str(error.value))
    assert said[0] == said[1]
    assert said[0].startswith(f"{path}: {message}")


def test_quotes_in_odd_places_are_refused_where_it_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(HEAD + 'a.jpg,1,"a "tall" tree",1\n')
    assert [row.caption for row in read_rows(path, strict=False)] == ['a tall" tree"']
    with pytest.raises(ZeroVLError, match=r"line 2: not valid CSV \(.*expected after.*\); fix the row there"):
        list(read_rows(path, strict=True))


def test_a_caption_with_commas_is_whole_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    rows = [
        'a.jpg,1, "a dog, asleep",1',
        "b.jpg,2,a cat, awake,2",
        ' c.jpg,3,   "a ""tall"" tree", 3',
        'd.jpg,4, "Stop" he said,4',
        'e.jpg,5, "open,5',
        "f.jpg,6,six,6,, ",
    ]
    path.write_text(HEAD + "\n".join(rows) + "\n")
    assert [(row.image, row.caption, row.caption_id, row.problem) for row in read_rows(path, strict=False)] == [
        ("a.jpg", "a dog, asleep", "1", ""),
        ("", "", "", "row has 5 cells, the header has 4; put a cell with a separator in it in quotes"),
        (" c.jpg", 'a "tall" tree', " 3", ""),
        ("d.jpg", ' "Stop" he said', "4", ""),
        ("e.jpg", ' "open', "5", ""),
        ("f.jpg", "six", "6", ""),
    ]
