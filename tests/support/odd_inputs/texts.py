"""CSV, JSON and JSON lines: what people, spreadsheets and half-finished downloads leave in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import raw_sources
from tests.support.odd_inputs.kind import Kind, Outcome, refused
from tests.support.odd_inputs.tars import LFS_POINTER

HEAD = b"image,image_id,caption,caption_id\n"
GOOD = b"0.jpg,0,zero,0\n1.jpg,1,one,1\n"


def pictures(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(raw_sources.jpeg(number))


def csv(what: str, data: bytes, outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        pictures(folder / "train")
        (folder / "train_anno.csv").write_bytes(data)

    return Kind("CSV", what, write, outcome)


def row(text: str) -> bytes:
    """A CSV with the good rows and one more."""
    return HEAD + GOOD + text.encode()


def split_file(what: str, data: bytes, outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        pictures(folder / "images")
        (folder / "dataset.json").write_bytes(data)

    return Kind("JSON", what, write, outcome)


def image(number: int, **changes: Any) -> dict[str, Any]:
    """An image of Karpathy's file, with some of its values changed."""
    sentence = {"raw": f"sentence {number}", "sentid": number}
    return {"filename": f"{number}.jpg", "imgid": number, "split": "train", "sentences": [sentence]} | changes


def third(**changes: Any) -> bytes:
    """A split file with two good images and a third with some of its values changed."""
    return json.dumps({"images": [image(0), image(1), image(2, **changes)]}).encode()


def coco(what: str, data: object, outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        pictures(folder / "train2017")
        (folder / "captions_train2017.json").write_text(json.dumps(data))

    return Kind("COCO", what, write, outcome)


def captions(*annotations: object, images: tuple[object, ...] = ()) -> dict[str, Any]:
    """COCO's captions of two good pictures, and more."""
    good = [{"image_id": number, "id": number, "caption": f"caption {number}"} for number in range(2)]
    named = [{"id": number, "file_name": f"{number}.jpg"} for number in range(2)]
    return {"images": [*named, *images], "annotations": [*good, *annotations]}


def lines(what: str, data: bytes, outcome: Outcome) -> Kind:
    def write(folder: Path) -> None:
        pictures(folder)
        good = b'{"image": "0.jpg", "caption": "zero"}\n{"image": "1.jpg", "caption": "one"}\n'
        (folder / "train.jsonl").write_bytes(good + data)

    return Kind("JSON lines", what, write, outcome)


def whole_lines(what: str, data: bytes, outcome: Outcome) -> Kind:
    return Kind("JSON lines", what, lambda folder: (folder / "train.jsonl").write_bytes(data), outcome)


KINDS = [
    csv("empty file", b"", refused("no column image, image_id, caption, caption_id")),
    csv("header alone", HEAD, refused("has no samples")),
    csv("byte order mark", b"\xef\xbb\xbf" + row("2.jpg,2,two,2\n"), Outcome(3, 0)),
    csv("UTF-16", row("").decode().encode("utf-16"), refused("iconv -f UTF-16 -t UTF-8")),
    csv("pointer of Git LFS", LFS_POINTER, refused("a pointer of Git LFS in place of the file")),
    csv("Latin-1", HEAD + GOOD + b"2.jpg,2,caf\xe9,2\n", refused("not UTF-8")),
    csv("zero bytes", row("2.j\0pg,2,two,2\n"), Outcome(2, 1, "file name with a zero byte")),
    csv("line ends of old Macs", row("2.jpg,2,two,2\n").replace(b"\n", b"\r"), Outcome(3, 0)),
    csv("empty lines", row("\n\n\n2.jpg,2,two,2"), Outcome(3, 0)),
    csv("too few cells", row("2.jpg,2\n"), Outcome(2, 1, "row has 2 cells, the header has 4")),
    csv("too many cells", row("2.jpg,2,two, and more,2\n"), Outcome(2, 1, "row has 5 cells, the header has 4")),
    csv("empty cells beyond the header", row("2.jpg,2,two,2,,,,\n"), Outcome(3, 0)),
    csv("blanks before a quote", row('2.jpg,2, "two, and more",2\n'), Outcome(3, 0)),
    csv("blanks before a quote, and a line end within", row('2.jpg,2, "two,\n and more",2\n'), Outcome(3, 0)),
    csv(
        "blanks before a quote that is not closed",
        row('2.jpg,2, "two,2\n3.jpg,3,three,3\n'),
        Outcome(3, 1, "missing file"),
    ),
    csv(
        "quote that is not closed",
        row('2.jpg,2,"two,2\n3.jpg,3,three,3\n'),
        Outcome(2, 2, "a quote that opens in line 4 or after is not closed"),
    ),
    csv("line without end", HEAD + GOOD + b"x" * (17 << 20), refused("line 4: longer than 16777216 characters")),
    csv(
        "cell of 20 MiB over many lines",
        HEAD + GOOD + b'2.jpg,2,"' + (b"x" * 99_999 + b"\n") * 200,
        Outcome(2, 200, "not valid CSV"),
    ),
    csv("column missing", b"image,caption\n0.jpg,zero\n", refused("no column image_id, caption_id")),
    csv(
        "caption of 2 MB",
        row(f"2.jpg,2,{'x' * 2_000_000},2\n"),
        Outcome(2, 1, "caption of 2000000 bytes, more than 10000"),
    ),
    csv("empty caption", row("2.jpg,2, ,2\n"), Outcome(2, 1, "empty caption")),
    csv("id below zero", row("2.jpg,-2,two,2\n"), Outcome(2, 1, "image_id '-2' is not a whole number")),
    csv(
        "id of 64 bits",
        row(f"2.jpg,{2**63},two,2\n"),
        Outcome(2, 1, "is not a whole number"),
    ),
    csv(
        "id of 5,000 digits",
        row(f"2.jpg,{'9' * 5000},two,2\n"),
        Outcome(2, 1, "is not a whole number"),
    ),
    csv("id in other digits", row("2.jpg,٢,two,2\n"), Outcome(2, 1, "image_id '٢' is not a whole number")),
    csv(
        "id of another picture",
        row("2.jpg,1,two,2\n"),
        Outcome(2, 1, "image_id 1 already belongs to '1.jpg', here it has '2.jpg'"),
    ),
    csv(
        "name that leaves the folder",
        row("../../x.jpg,2,two,2\n"),
        Outcome(2, 1, "file name '../../x.jpg' leaves its folder"),
    ),
    csv("drive of Windows", row("C:\\2.jpg,2,two,2\n"), Outcome(2, 1, "absolute file name 'C:\\\\2.jpg'")),
    csv("no name", row(",2,two,2\n"), Outcome(2, 1, "no file name")),
    csv("name of 5,000 letters", row(f"{'x' * 5000},2,two,2\n"), Outcome(2, 1, "cannot be read: File name too long")),
    split_file("split in capitals", third(split="TRAIN"), Outcome(3, 0)),
    split_file("name in another letter case", third(filename="2.JPG"), Outcome(3, 0)),
    split_file("empty file", b"", refused("not valid JSON")),
    split_file("cut short", third()[:-40], refused("not valid JSON")),
    split_file("not UTF-8", third().replace(b"sentence 2", b"caf\xe9"), refused("not valid JSON")),
    split_file("byte order mark", b"\xef\xbb\xbf" + third(), Outcome(3, 0)),
    split_file("nested 100,000 deep", b'{"images": ' + b"[" * 100_000, refused("not valid JSON")),
    split_file("number of 5,000 digits", b'{"images": [%s]}' % (b"9" * 5000), refused("not valid JSON")),
    split_file("list in place of a mapping", b"[]", refused("no list 'images'")),
    split_file("no list of images", b'{"images": {"0": 1}}', refused("no list 'images'")),
    split_file("image that is not a mapping", b'{"images": [1, %s]}' % json.dumps(image(0)).encode(), Outcome(1, 0)),
    split_file("id that is not finite", third(imgid=float("nan")), Outcome(2, 1, "imgid nan is not a whole number")),
    split_file("id of another image", third(imgid=1), Outcome(2, 1, "image id 1 was used before")),
    split_file("no filename", third(filename=None), Outcome(2, 1, "no filename")),
    split_file("filename that is a number", third(filename=2), Outcome(2, 1, "no filename")),
    split_file("absolute filename", third(filename="/etc/passwd"), Outcome(2, 1, "absolute file name '/etc/passwd'")),
    split_file("sentences that are a text", third(sentences="two"), Outcome(2, 1, "no caption")),
    split_file("sentence without text", third(sentences=[{"sentid": 2}]), Outcome(2, 1, "sentence without 'raw'")),
    split_file(
        "half a character",
        third(sentences=[{"raw": "\ud800", "sentid": 2}]),
        Outcome(2, 1, "caption is not valid Unicode (a lone surrogate)"),
    ),
    split_file(
        "id of another sentence",
        third(sentences=[{"raw": "two", "sentid": 1}]),
        Outcome(2, 1, "caption_id 1 was used before"),
    ),
    coco("no list of annotations", {"images": []}, refused("no lists 'images' and 'annotations'")),
    coco(
        "annotation of an image that it has not",
        captions({"image_id": 2, "id": 2, "caption": "two"}),
        Outcome(2, 1, "no image of 'images' has its image_id 2"),
    ),
    coco(
        "image without an annotation",
        captions(images=({"id": 2, "file_name": "2.jpg"},)),
        Outcome(2, 1, "no caption: no annotation has the id 2 of this image"),
    ),
    whole_lines("UTF-16", '{"image": "0.jpg"}\n'.encode("utf-16"), refused("UTF-16, not UTF-8; save it as UTF-8")),
    whole_lines(
        "JSON of many lines", b'[\n{\n"image": "0.jpg"\n}\n]\n', refused("no mapping of names to values in its")
    ),
    lines("last line cut short", b'{"image": "2.jpg", "capt', Outcome(2, 1, "not valid JSON")),
    lines("line that is a list", b'["2.jpg", "two"]\n', Outcome(2, 1, "not a mapping of names to values")),
    lines("line nested 100,000 deep", b"[" * 100_000 + b"\n", Outcome(2, 1, "not valid JSON")),
    lines("line that is not UTF-8", b'{"image": "2.jpg", "caption": "caf\xe9"}\n', Outcome(2, 1, "not UTF-8")),
    lines(
        "line of 17 MiB",
        b" " * (17 << 20) + b'\n{"image": "2.jpg", "caption": "two"}\n',
        Outcome(3, 1, "line longer than 16777216 bytes"),
    ),
    lines("line without a caption", b'{"image": "2.jpg"}\n', Outcome(2, 1, "empty caption")),
    lines(
        "caption that is a number",
        b'{"image": "2.jpg", "caption": 2}\n',
        Outcome(2, 1, "caption of type int, not a text"),
    ),
    lines(
        "name that is a number, then a text",
        b'{"image": 7, "caption": "seven"}\n{"image": "7", "caption": "seven"}\n',
        Outcome(2, 2, "picture of type int, neither a name nor bytes"),
    ),
    lines(
        "picture that is a list",
        b'{"image": ["2.jpg"], "caption": "two"}\n',
        Outcome(2, 1, "picture of type list, neither a name nor bytes"),
    ),
    lines(
        "half a character",
        b'{"image": "2\\ud800.jpg", "caption": "two"}\n',
        Outcome(2, 1, "file name is not valid Unicode"),
    ),
    lines("web address", b'{"image": "https://a.b/2.jpg", "caption": "two"}\n', Outcome(2, 1, "a web address")),
]
