"""One tar from front to back: the samples that webdataset gives, and a count of all that it does not."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from tests.support.raw_sources import jpeg, sample, write_tar
from zerovl.data.raw import tar_keys
from zerovl.data.raw.tar_captions import caption_a_line, caption_reader, one_caption
from zerovl.data.raw.tar_samples import read_samples
from zerovl.data.streams import tar_stream
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar
from zerovl.errors import ZeroVLError
from zerovl.images import not_read

RULES = SampleRules("web", caption_reader("", one_caption), 100)


def read(path: Path, rules: SampleRules = RULES) -> tuple[list[str], dict[str, int]]:
    """Keys of the samples that arrive, and what is lost."""
    lost = Lost()
    with open(path, "rb") as stream:
        found = [each.key.removeprefix(f"web-{path.name}-") for each in read_tar(str(path), stream, rules, lost)]
    return found, lost.counts


def test_the_samples_are_webdataset_s_own(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, [member for number in range(5) for member in sample(f"a/{number:03d}", number, f"no {number}")])
    expected = list(webdataset.WebDataset(str(path), shardshuffle=False))
    lost = Lost()
    with open(path, "rb") as stream:
        found = list(read_tar(str(path), stream, RULES, lost))
    assert [(one.image, one.captions) for one in found] == [(raw["jpg"], [raw["txt"].decode()]) for raw in expected]
    assert [one.key for one in found] == [f"web-0.tar-a/{number:03d}" for number in range(5)]
    assert not lost.counts


def test_keys_with_dots_and_members_that_only_go_along(tmp_path: Path) -> None:
    mask = [("1.seg.png", b"mask"), ("1.txt", b"one")]
    dotted = [member for number in (1, 2) for member in sample(f"2021.05.{number}", number)]
    before = [("3.cls.json", b"{}"), ("3.jpg", jpeg(3)), ("3.txt", b"three")]
    hidden = [("._3.jpg", b"of macOS"), ("__MACOSX/._3.jpg", b""), ("readme", b"")]
    write_tar(tmp_path / "0.tar", [("1.jpg", jpeg(1)), *mask, *dotted, *before, *hidden])
    assert read(tmp_path / "0.tar") == (["1", "2021.05.1", "2021.05.2", "3"], {})


def test_pairs_whose_keys_begin_with_anothers_are_pairs(tmp_path: Path) -> None:
    """As `prepare` reads them, wherever the members of all of them lie together."""
    pairs = [member for number, key in enumerate(("1", "1.2", "1.2.3", "4")) for member in sample(key, number, key)]
    along = [
        ("1.seg.png", b"mask"),
        ("1.cls.json", b"3"),
        ("1.emb.npy", b"x"),
        ("1.a.json", b"{}"),
        ("1.b.json", b"{}"),
    ]
    members = [*pairs[:9], *along]
    for order in (
        members,
        sorted(members, key=lambda member: str(member[0])),
        sorted(members, key=lambda member: str(member[0]).rpartition(".")[2]),
        [*along, *pairs[3:9], *pairs[:3]],
    ):
        write_tar(tmp_path / "0.tar", [*order, *pairs[9:]])
        found, lost = read(tmp_path / "0.tar")
        assert (sorted(found), lost) == (["1", "1.2", "1.2.3", "4"], {})
    lonely = [("7.a.jpg", jpeg(7)), ("7.b.jpg", jpeg(7)), ("8.jpg", jpeg(8)), ("8.1.jpg", jpeg(8)), ("8.1.txt", b"one")]
    write_tar(tmp_path / "0.tar", lonely)
    assert read(tmp_path / "0.tar") == (["8.1"], {"no caption: neither .txt nor a caption in .json": 3})


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [
        ("0.jpg", jpeg(0)),
        ("1.txt", b"no picture"),
        ("2.jpg", jpeg(2)),
        ("2.json", b"{"),
        ("3.jpg", jpeg(3)),
        ("3.txt", b" \n "),
        ("4.jpg", jpeg(4)),
        ("4.txt", b"x" * 101),
        ("5.jpg", jpeg(5)),
        ("5.png", jpeg(5)),
        ("5.txt", b"two"),
        ("6.jpg", jpeg(6)),
        ("6.txt", b"twice"),
        ("6.txt", b"twice"),
        ("7.jpg", jpeg(7)),
        ("7.json", json.dumps({"captions": ["good", " "]}).encode()),
    ]
    write_tar(tmp_path / "0.tar", members)
    assert read(tmp_path / "0.tar") == (
        ["7"],
        {
            "no caption: neither .txt nor a caption in .json": 1,
            "no picture with this key": 1,
            "its .json is not valid JSON (JSONDecodeError)": 1,
            "empty caption": 1,
            "caption of 101 bytes, more than 100": 1,
            "two pictures with the same key": 1,
            "two members of one name": 1,
            "empty caption (of a picture's captions)": 1,
        },
    )


def test_heic_is_said_and_does_not_stand_in_the_way_of_a_jpeg(tmp_path: Path) -> None:
    alone: list[tuple[str | tarfile.TarInfo, bytes]] = [("8.heic", b"x"), ("8.txt", b"of a telephone")]
    write_tar(tmp_path / "0.tar", [("0.heic", b"x"), *sample("0", 0), *alone, *sample("9", 9), ("9.HEIF", b"x")])
    found, lost = read(tmp_path / "0.tar")
    assert found == ["0", "9"]
    assert lost == {not_read("HEIC"): 1}


def test_what_webdataset_passes_over_is_read_or_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("2.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
    marked = sample("__a__/0", 0)
    lettered = [member for number, key in enumerate(("1", "1.A", "1.a")) for member in sample(key, number)]
    twice = [*sample("3", 3), *sample("3.1", 3), ("3.1.txt", b"twice")]
    write_tar(tmp_path / "0.tar", [*marked, *lettered, (link, b""), *twice, ("../4.jpg", jpeg(4))])
    assert read(tmp_path / "0.tar") == (
        ["__a__/0", "1", "1.A", "1.a", "3"],
        {
            "a link in a tar (to '1.jpg')": 1,
            "two members of one name": 1,
            "file name '../4.jpg' leaves its folder": 1,
        },
    )


def test_what_is_held_and_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys of one beginning than are held; with more halves than are remembered some count twice, none never."""
    keys, path = [f"2021.{number:03d}" for number in range(250)], tmp_path / "0.tar"
    pictures, texts = [(f"{key}.jpg", b"picture") for key in keys], [(f"{key}.txt", b"text") for key in keys]
    write_tar(path, [member for pair in zip(pictures, texts, strict=True) for member in pair])
    assert read(path) == (keys, {})
    write_tar(path, [*pictures, *texts])
    found, lost = read(path)
    assert (found, lost) == ([], {next(iter(lost)): 250})
    assert next(iter(lost)).startswith("its members do not lie together; `tar --sort=name`")
    monkeypatch.setattr(tar_stream, "_MOST_HALVES", 20)
    monkeypatch.setattr(tar_keys, "_REMEMBERED", 20)
    found, lost = read(path)
    assert (found, sum(lost.values())) == ([], 500)


def test_captions_of_another_key_and_of_lines(tmp_path: Path) -> None:
    title = json.dumps({"title": "from the JSON"}).encode()
    write_tar(tmp_path / "0.tar", [("0.jpg", jpeg(0)), ("0.json", title), ("0.txt", b"one\ntwo")])
    for rules, expected in (
        (SampleRules("web", caption_reader("title", one_caption), 100), ["from the JSON"]),
        (SampleRules("web", caption_reader("", caption_a_line), 100), ["one", "two"]),
    ):
        (found,) = read_tar("0.tar", io.BytesIO((tmp_path / "0.tar").read_bytes()), rules, Lost())
        assert found.captions == expected


@pytest.mark.parametrize("stats", [None, {"successes": 9}])
@pytest.mark.parametrize("cut", ["in a picture", "between two members", "before the end mark"])
def test_a_tar_that_ends_too_early(cut: str, stats: dict[str, int] | None, tmp_path: Path) -> None:
    """`tarfile`, and so webdataset, takes two of the three for the end."""
    path = tmp_path / "0.tar"
    write_tar(path, [member for number in range(4) for member in sample(str(number), number)])
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    third, last = members[6], members[-1]
    at = {
        "in a picture": third.offset_data + 10,
        "between two members": members[7].offset,
        "before the end mark": last.offset_data + 512,
    }[cut]
    path.write_bytes(path.read_bytes()[:at])
    if stats:
        (tmp_path / "0_stats.json").write_text(json.dumps(stats))
    found, lost = read(path)
    whole = 4 if cut == "before the end mark" else 2
    assert found == [str(number) for number in range(whole)]
    if cut == "between two members":  # a picture without its caption is there as well
        assert lost.pop("no caption: neither .txt nor a caption in .json") == 1
        whole += 1
    ((reason, count),) = lost.items()
    assert "tar" in reason
    assert count == (9 - whole if stats else 1)
    assert reason.endswith("should still have had is lost" if stats else "at least one sample is lost")


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    write_tar(path, [member for number in range(40) for member in sample(f"{number:02d}", number)])
    with tarfile.open(path) as tar:
        header = tar.getmembers()[12].offset  # of the picture of 04
    content = bytearray(path.read_bytes())
    content[header : header + 512] = b"\xff" * 512
    path.write_bytes(content)
    (tmp_path / "0_stats.json").write_text(json.dumps({"successes": 40}))
    found, lost = read(path)
    assert found == ["00", "01", "02", "03"]
    assert lost == {"damaged tar; what it should still have had is lost": 36}


def ends(path: Path) -> int:
    """The byte behind the last member."""
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + (last.size + 511) // 512 * 512


END_OF_TARS = {
    "one empty block": (bytes(512), None),
    "many empty blocks": (bytes(100 * 512), None),
    "half a block": (bytes(256), "truncated tar: no end mark"),
    "a broken header among the last bytes": (b"\xff" * 512 + bytes(1024), "damaged tar"),
    "another tar": (bytes(1024) + b"2.jpg", "damaged tar: it goes on behind its end mark"),
}


@pytest.mark.parametrize("kind", END_OF_TARS)
def test_both_readers_agree_where_a_tar_is_whole(kind: str, tmp_path: Path) -> None:
    path, (end, reason) = tmp_path / "0.tar", END_OF_TARS[kind]
    write_tar(path, [*sample("0", 0), *sample("1", 1)])
    path.write_bytes(path.read_bytes()[: ends(path)] + end)
    expected = {f"{reason}; at least one sample is lost": 1} if reason else {}
    assert read(path) == (["0", "1"], expected)
    problems = [each.problem for each in read_samples(str(path), path.name, lambda: None) if each.problem]
    assert len(problems) == len(expected)
    assert all(problem.startswith(str(reason)) for problem in problems)


def test_a_member_that_is_passed_over_and_says_it_is_huge_ends_the_tar(tmp_path: Path) -> None:
    """`tarfile` would ask for its bytes, 10 KiB after 10 KiB, for ever."""
    path, link = tmp_path / "0.tar", tarfile.TarInfo("__MACOSX/1.jpg")
    write_tar(path, [*sample("0", 0), (link, b"x")])
    data = bytearray(path.read_bytes())
    at = data.index(b"__MACOSX/1.jpg")
    data[at + 124 : at + 136] = b"\x80\x04" + bytes(10)  # 2**82 bytes
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    found, lost = read(path)
    assert (found, sum(lost.values())) == (["0"], 1)


def test_no_tar_and_an_empty_file_are_counted(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_bytes(b"<html>not found</html>" * 100)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("page.tar", "empty.tar"):
        found, lost = read(tmp_path / name)
        assert not found
        assert sum(lost.values()) == 1


def test_compressed_tars_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in sample("0", 0):
            assert isinstance(name, str)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert read(path) == (["0"], {})


class Away:
    """A stream whose server goes away."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        if self._data.tell() > 1000:
            raise ConnectionResetError("reset by peer")
        return self._data.read(min(size, 600) if size > 0 else size)

    def close(self) -> None:
        self._data.close()


def test_bytes_that_do_not_come_are_no_damage(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [member for number in range(4) for member in sample(str(number), number)])
    lost, stream = Lost(), Away((tmp_path / "0.tar").read_bytes())
    with pytest.raises(ZeroVLError, match=r"^http://x/0\.tar: cannot be read \(reset by peer\); .* resumes from its"):
        list(read_tar("http://x/0.tar", stream, RULES, lost))
    assert not lost.counts
