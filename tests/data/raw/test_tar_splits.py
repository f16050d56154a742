"""Which folder's tars are evaluated on: `valid/`, or the one that is set, or the only one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_sources, s3
from tests.support.raw_sources import run_sources
from zerovl.errors import ZeroVLError


@pytest.fixture(params=["here", "on S3"])
def place(request: pytest.FixtureRequest) -> str:
    where: str = request.param
    return where


def put(root: Path, bucket: str, place: str, **samples: int) -> str:
    """Write a tar of so many samples to each folder ("own": the source's own); returns the path of the source."""
    tars = {f"{'' if folder == 'own' else f'{folder}/'}0.tar": count for folder, count in samples.items()}
    return put_tars(root, bucket, place, tars)


def put_tars(root: Path, bucket: str, place: str, tars: dict[str, int]) -> str:
    """Write tars of so many samples by their names below the source; returns its path."""
    for name, count in tars.items():
        raw_sources.write_tar(root / "raw/w" / name, raw_sources.samples(map(str, range(count))))
        if place == "on S3":
            s3.client().upload_file(str(root / "raw/w" / name), bucket, f"w/{name}")
    return f"s3://{bucket}/w" if place == "on S3" else "raw/w"


def pairs(root: Path, path: str, **setting: Any) -> dict[str, int]:
    layout = {"layout": "webdataset"} if path.startswith("s3://") else {}
    manifest = run_sources(root, {"name": "w", "path": path} | layout | setting)
    return {split: info.pairs for (_, split), info in manifest.splits.items()}


@pytest.mark.parametrize("folder", ["test", "val", "validation"])
def test_tars_that_lie_nowhere_else_are_the_valid_split(
    tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture, place: str, folder: str
) -> None:
    caplog.set_level("INFO")
    path = put(tmp_path, moto_bucket, place, **{folder: 3})
    assert pairs(tmp_path, path) == {"valid": 3}
    assert f"source 'w': its valid split are the tars of {folder}/" in caplog.text
    assert pairs(tmp_path, path, splits=["valid"], layout="webdataset") == {"valid": 3}


def test_folders_may_have_any_letter_case(tmp_path: Path, moto_bucket: str, place: str) -> None:
    path = put(tmp_path, moto_bucket, place, Train=2, train=1, VALID=3, Test=4)
    assert pairs(tmp_path, path) == {"train": 3, "valid": 3}
    assert pairs(tmp_path, path, evaluation_split="test") == {"train": 3, "valid": 4}
    if place == "here":
        assert pairs(tmp_path, f"{path}/Test", layout="webdataset") == {"valid": 4}
        with_source = [{"name": name, "path": at} for name, at in (("w", path), ("t", f"{path}/Test"))]
        manifest = run_sources(tmp_path, *with_source)
        assert {key: info.pairs for key, info in manifest.splits.items()} == {
            ("t", "valid"): 4,
            ("w", "train"): 3,
            ("w", "valid"): 3,
        }


def test_the_folder_that_is_set_is_evaluated_on(
    tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    path = put(tmp_path, moto_bucket, place, train=2, valid=1, test=3, val=4)
    assert pairs(tmp_path, path) == {"train": 2, "valid": 1}
    assert "or set its evaluation_split to test or val" in caplog.text
    caplog.clear()
    assert pairs(tmp_path, path, evaluation_split="test") == {"train": 2, "valid": 3}
    assert "2 tars in other folders than train/ and valid/ are not read: val/0.tar, valid/0.tar" in caplog.text
    assert pairs(tmp_path, path, evaluation_split="val", layout="webdataset") == {"train": 2, "valid": 4}


def test_a_set_that_is_not_there_leaves_valid_as_it_is(tmp_path: Path, moto_bucket: str, place: str) -> None:
    path = put(tmp_path, moto_bucket, place, train=2, valid=1, test=3)
    assert pairs(tmp_path, path, evaluation_split="val") == {"train": 2, "valid": 1}


def test_tars_of_the_folder_itself_keep_test_out(tmp_path: Path, moto_bucket: str, place: str) -> None:
    path = put(tmp_path, moto_bucket, place, own=2, test=3)
    assert pairs(tmp_path, path) == {"train": 2}
    assert pairs(tmp_path, path, evaluation_split="test") == {"train": 2, "valid": 3}


@pytest.mark.parametrize("folder", ["test", "val", "valid"])
def test_a_source_called_so_is_no_training_data(
    tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture, place: str, folder: str
) -> None:
    caplog.set_level("INFO")
    path = put(tmp_path, moto_bucket, place, **{folder: 3})
    assert pairs(tmp_path, f"{path}/{folder}") == {"valid": 3}
    assert f"source 'w': its tars are a valid split, since its folder is called {folder};" in caplog.text
    assert pairs(tmp_path, f"{path}/{folder}", splits=["valid"]) == {"valid": 3}
    assert pairs(tmp_path, f"{path}/{folder}", splits=["train"]) == {"train": 3}


def test_a_source_called_so_with_splits_of_its_own_has_these(tmp_path: Path) -> None:
    raw_sources.write_tar(tmp_path / "test" / "0.tar", raw_sources.sample("0", 0))
    raw_sources.write_tar(tmp_path / "test" / "valid" / "0.tar", raw_sources.sample("1", 1))
    assert pairs(tmp_path, "test") == {"train": 1, "valid": 1}


def test_tars_that_are_another_source_are_not_read_twice(tmp_path: Path, moto_bucket: str, place: str) -> None:
    path = put(tmp_path, moto_bucket, place, test=3)
    inner = {"name": "t", "path": f"{path}/test", "layout": "webdataset"}
    with pytest.raises(ZeroVLError, match=r"source 'w': .* is empty, wanted: train, valid"):
        run_sources(tmp_path, {"name": "w", "path": path, "layout": "webdataset"}, inner)


def test_a_folder_that_another_layout_knows_stays_so(tmp_path: Path) -> None:
    raw_sources.write_zerovl(tmp_path / "raw/w", "train", 2)
    raw_sources.write_tar(tmp_path / "raw/w/test/0.tar", raw_sources.sample("0", 0))
    assert pairs(tmp_path, "raw/w") == {"train": 2}


def test_tars_in_other_folders_are_said(
    tmp_path: Path, moto_bucket: str, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    names = ("0", "train/1", "test/2", "train/part-1/3", "part-2/4", "__MACOSX/5", "part-2/._4")
    path = put_tars(tmp_path, moto_bucket, place, {f"{name}.tar": 1 for name in names})
    assert pairs(tmp_path, path) == {"train": 2}
    said = "source 'w': 3 tars in other folders than train/ and valid/ are not read: part-2/4.tar, test/2.tar, "
    advice = "move them there, or name their folders in data.sources, or set its evaluation_split to test"
    assert f"{said}train/part-1/3.tar; {advice}" in caplog.text
    caplog.clear()
    further = [{"name": name, "path": f"{path}/{folder}"} for name, folder in (("p", "part-2"), ("t", "test"))]
    manifest = run_sources(tmp_path, {"name": "w", "path": path}, *further)
    found = {key: info.pairs for key, info in manifest.splits.items()}
    assert found == {("w", "train"): 2, ("p", "train"): 1, ("t", "valid"): 1}
    assert "source 'w': 1 tar in other folders than train/ and valid/ is not read: train/part-1/3.tar;" in caplog.text


def test_a_source_whose_tars_lie_elsewhere_is_refused_with_their_folder(tmp_path: Path) -> None:
    put_tars(tmp_path, "", "here", {"part-2/4.tar": 1, "__MACOSX/5.tar": 1})
    with pytest.raises(
        ZeroVLError, match=r"has no known layout; .*; it has tars in part-2/, which are read where that"
    ):
        pairs(tmp_path, "raw/w")
