"""What a tar should have had and has not: counted sample by sample where something says how many there were."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import pytest

from tests.support import raw_sources, s3
from zerovl.data.raw import tar_samples
from zerovl.data.raw.tar_captions import caption_reader, one_caption
from zerovl.data.stated_samples import Stated
from zerovl.data.streams.lost import Lost
from zerovl.data.streams.tar_stream import SampleRules, read_tar

RULES = SampleRules("w", caption_reader("", one_caption), 100)

STATS = {"00000_stats.json": json.dumps({"count": 25, "successes": 20})}
CUT = {"statistics": STATS, "index of DALI": {"00000.idx": "v1.2 20\n"}, "nothing": {}}


@pytest.mark.parametrize("tars", ["packed", "in_place"])
@pytest.mark.parametrize("place", ["here", "on S3"])
@pytest.mark.parametrize("beside", CUT)
def test_what_a_cut_tar_has_lost_is_counted(
    tmp_path: Path, moto_bucket: str, beside: str, place: str, tars: str
) -> None:
    folder = tmp_path / "raw/w"
    raw_sources.write_tar(folder / "00000.tar", raw_sources.samples([f"{number:03d}" for number in range(20)]))
    for name, text in CUT[beside].items():
        (folder / name).write_text(text)
    os.truncate(folder / "00000.tar", int((folder / "00000.tar").stat().st_size * 0.6))
    path = "raw/w"
    if place == "on S3":
        path = f"s3://{moto_bucket}/w"
        for file in list(folder.iterdir()):
            s3.client().upload_file(str(file), moto_bucket, f"w/{file.name}")
            file.unlink()
    manifest = raw_sources.run_sources(tmp_path, {"name": "w", "path": path, "tars": tars}, shard_samples=100)
    info = manifest.splits["w", "train"]
    assert 8 <= info.pairs <= 14
    assert info.broken == (20 - info.pairs if CUT[beside] else 1)
    [reason] = set(raw_sources.errors(manifest, "w").values())
    assert reason.endswith(
        f"{20 - info.pairs} of 20 samples are lost" if CUT[beside] else "at least one sample is lost"
    )


@pytest.mark.parametrize("tars", ["packed", "in_place"])
@pytest.mark.parametrize("place", ["here", "on S3"])
@pytest.mark.parametrize("beside", ["statistics", "index of DALI"])
def test_what_a_whole_tar_lacks_of_what_is_stated_is_counted(
    tmp_path: Path, moto_bucket: str, beside: str, place: str, tars: str
) -> None:
    folder, path = tmp_path / "raw/w", "raw/w"
    raw_sources.write_tar(folder / "00000.tar", raw_sources.samples([f"{number:03d}" for number in range(17)]))
    ((name, text),) = CUT[beside].items()
    (folder / name).write_text(text)
    lost = Lost()
    with open(folder / "00000.tar", "rb") as stream:
        assert len(list(read_tar(str(folder / "00000.tar"), stream, RULES, lost))) == 17
    assert lost.counts == {f"{tar_samples.LACKING}; {tar_samples.LACKING_FIX}": 3}
    if place == "on S3":
        path = f"s3://{moto_bucket}/w"
        for file in folder.iterdir():
            s3.client().upload_file(str(file), moto_bucket, f"w/{file.name}")
    source = {"name": "w", "path": path, "tars": tars}
    for _ in range(2):  # in place the second one reads no tar
        manifest = raw_sources.run_sources(tmp_path, source, shard_samples=100)
        info = manifest.splits["w", "train"]
        assert (info.pairs, info.broken) == (17, 3)
        [reason] = {row["error"] for row in raw_sources.rows(manifest, "w") if row["error"]}
        assert reason == (
            f"a whole tar has 17 of the 20 samples that {name} beside it states; get the tar again, or delete that "
            "file if they were taken out on purpose"
        )
    (folder / name).unlink()  # as it says
    s3.client().delete_object(Bucket=moto_bucket, Key=f"w/{name}")
    info = raw_sources.run_sources(tmp_path, source, shard_samples=100).splits["w", "train"]
    assert (info.pairs, info.broken) == (17, 0)


@pytest.mark.parametrize("tars", ["packed", "in_place"])
def test_of_tars_that_were_filtered_a_line_says_what_to_do(
    tars: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five of six have lost samples on purpose, and still have the statistics of what was downloaded."""
    caplog.set_level("INFO")
    for tar in range(6):
        keys = [f"{tar}{number}" for number in range(4 if tar < 5 else 5)]
        raw_sources.write_tar(tmp_path / f"raw/w/{tar}.tar", raw_sources.samples(keys))
        (tmp_path / f"raw/w/{tar}_stats.json").write_text(json.dumps({"successes": 5}))
    source = {"name": "w", "path": "raw/w", "tars": tars}

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "_stats.json" in record.getMessage()]

    manifest = raw_sources.run_sources(tmp_path, source)
    assert (manifest.splits["w", "train"].pairs, manifest.splits["w", "train"].broken) == (25, 5)
    [line] = lines()
    each = [f"{tar}.tar has 4 of the 5 samples that {tar}_stats.json beside it states" for tar in range(3)]
    assert line.startswith(f"w/train: 5 samples missing from 5 whole tars: {', '.join(each)}, .... Get the tar again; ")
    assert "if samples were taken out on purpose, delete the file beside it and prepare again" in line
    assert "validate.max_broken_fraction" in line
    caplog.clear()
    for file in (tmp_path / "raw/w").glob("*_stats.json"):
        file.unlink()
    assert raw_sources.run_sources(tmp_path, source).splits["w", "train"].broken == 0
    assert not lines()


@pytest.mark.parametrize("stated", [8, None])
@pytest.mark.parametrize("tars", ["packed", "in_place"])
@pytest.mark.parametrize("between", ["two tars, one behind the other", "an empty block"])
def test_samples_behind_an_end_mark_are_counted(
    between: str, tars: str, stated: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "raw/w/0.tar"
    raw_sources.write_tar(path, raw_sources.samples(list("4567")))
    second = path.read_bytes()
    raw_sources.write_tar(path, raw_sources.samples(list("0123")))
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        end = last.offset_data + (last.size + 511) // 512 * 512
    first = path.read_bytes()
    path.write_bytes(first + second if between.startswith("two") else first[:end] + bytes(512) + second)
    if stated:
        (path.parent / "0_stats.json").write_text(json.dumps({"successes": stated}))
    manifest = raw_sources.run_sources(tmp_path, {"name": "w", "path": "raw/w", "tars": tars}, shard_samples=100)
    info = manifest.splits["w", "train"]
    assert (info.pairs, info.broken) == (4, 4 if stated else 1)
    [reason] = set(raw_sources.errors(manifest, "w").values())
    lost = "4 of 8 samples are lost" if stated else "at least one sample is lost"
    what = f"damaged tar: it goes on behind its end mark at byte {end}"
    assert reason == f"{what}; what comes before it is used, {lost}"
    [line] = [record.getMessage() for record in caplog.records if "--ignore-zeros" in record.getMessage()]
    assert line.startswith(f"0.tar: {what}; what is behind it is not read")


@pytest.mark.parametrize("place", ["here", "on S3"])
def test_a_tar_in_place_that_was_whole_has_lost_what_its_index_had(
    place: str, tmp_path: Path, moto_bucket: str
) -> None:
    """Nothing lies beside it; `prepare` has read it when it was whole."""
    path, source = tmp_path / "raw/w/0.tar", {"name": "w", "path": "raw/w", "tars": "in_place"}
    raw_sources.write_tar(path, raw_sources.samples([f"{number:03d}" for number in range(20)]))
    whole = path.read_bytes()

    def write(data: bytes) -> None:
        path.write_bytes(data)
        if place == "on S3":
            s3.client().put_object(Bucket=moto_bucket, Key="w/0.tar", Body=data)

    if place == "on S3":
        source["path"] = f"s3://{moto_bucket}/w"
    write(whole)
    assert raw_sources.run_sources(tmp_path, source).pairs("w", "train") == 20
    for share in (0.6, 0.4):  # twice: what was known of the whole tar stays known
        write(whole[: int(share * len(whole))])
        info = raw_sources.run_sources(tmp_path, source).splits["w", "train"]
        assert 0 < info.pairs < 15
        assert info.broken == 20 - info.pairs
    write(whole)
    info = raw_sources.run_sources(tmp_path, source).splits["w", "train"]
    assert (info.pairs, info.broken) == (20, 0)


def test_a_disk_that_fails_costs_what_lies_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.tar"
    raw_sources.write_tar(path, raw_sources.samples([f"{number:03d}" for number in range(6)]))

    def members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
        yield from islice(whole_members(file), 9)  # three samples, the last of them still open
        raise OSError(5, "Input/output error")

    whole_members = tar_samples.whole_members
    monkeypatch.setattr(tar_samples, "whole_members", members)
    found = list(tar_samples.read_samples(str(path), path.name, lambda: Stated(6, "0_stats.json")))
    assert [sample.key for sample in found if sample.complete] == ["000", "001", "002"]
    assert {sample.problem for sample in found[3:]} == {
        "cannot be read: Input/output error; what comes before it is used, 3 of 6 samples are lost"
    }
    assert len(found) == 6
