"""A training from tars that are read as they lie: killed and resumed, and what it says of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.raw_sources import sample, write_tar
from tests.support.tiny_project import (
    copy_project,
    make_project,
    recipe,
    set_params,
    start_training,
    train,
    wait_for_step,
)
from zerovl.bundle_files import WEIGHTS
from zerovl.data.streams.places import Layout
from zerovl.data.streams.reader import StreamedSource
from zerovl.errors import ZeroVLError
from zerovl.training.fingerprint import differences
from zerovl.training.run_spec import make_spec
from zerovl.training.streaming import check_tars, places_of, write_report
from zerovl.workspace import Workspace

TARS, EACH = 6, 8


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A prepared project, with tars beside it that `prepare` has not seen; one has a sample without a caption."""
    workspace = make_project(tmp_path_factory.mktemp("project"))
    for source in ("sea", "sky"):
        for tar in range(TARS):
            numbers = range(EACH * tar, EACH * (tar + 1))
            members = [member for n in numbers for member in sample(f"{n:03d}", n, f"a {source} with {n % 7} waves")]
            write_tar(workspace.root / "tars" / source / f"{tar:05d}.tar", members)
            stats = {"successes": EACH, "count": EACH + 2}
            (workspace.root / "tars" / source / f"{tar:05d}_stats.json").write_text(json.dumps(stats))
    write_tar(workspace.root / "tars/sky/00000.tar", [*sample("000", 0), ("001.jpg", b"x"), *sample("002", 2)])
    return workspace


def settings(project: Workspace, *overrides: str) -> list[str]:
    folder = project.root / "tars"
    sources = [
        {"name": "sea", "urls": [f"{folder}/sea/{{00000..{TARS - 1:05d}}}.tar"], "pairs": 48},
        {"name": "sky", "urls": [f"{folder}/sky/*.tar"]},
    ]
    return [
        "train.reading=streaming",
        f"train.streaming.sources={json.dumps(sources)}",
        "train.streaming.shuffle_buffer=10",
        "train.streaming.chapter_tars=2",
        "train.epochs=3",
        "train.valid_checks=0",
        *overrides,
    ]


def test_a_killed_run_ends_bit_equal_and_says_what_it_reads(project: Workspace, tmp_path: Path) -> None:
    whole, killed = copy_project(project, tmp_path / "whole"), copy_project(project, tmp_path / "killed")
    for workspace in (whole, killed):
        set_params(workspace, *settings(project, "machine.loader_workers=1"))
    said = train(whole)
    assert "18 of 16 pairs, about 6 an epoch, 3 epochs over 96 pairs" in said
    assert "sources  sea 48, sky 48 pairs; debiased" in said
    assert "streams  sea: 6 tars, 48 pairs as its pairs say" in said
    assert "streams  sky: 6 tars, 48 pairs as their _stats.json say" in said
    assert "streams  streamed pairs were neither validated nor filtered" in said

    child = start_training(killed)
    wait_for_step(killed, 6, child)  # a checkpoint is begun when the one of step 3 is whole
    child.kill()
    child.wait()
    assert "resumes after step" in train(killed)
    weights = [(its.model / WEIGHTS).read_bytes() for its in (whole, killed)]
    assert weights[0] == weights[1]

    reports = [json.loads((its.training_report / "streams.json").read_text()) for its in (whole, killed)]
    assert reports[0] == reports[1]
    assert reports[0]["pairs"] == {"sea": 48, "sky": 48}
    assert reports[0]["pairs_seen"] == 18 * 16
    of_sky = {reason.split(":")[0]: lost for reason, lost in reports[0]["lost"]["sky"].items()}
    lost = of_sky.pop("no caption")
    assert lost["example"].endswith("sky/00000.tar:001")
    ((reason, lacking),) = of_sky.items()
    assert reason.startswith("a whole tar has fewer samples than the _stats.json")
    assert lacking["count"] == (EACH - 3) * lost["count"]  # at each visit of the tar
    assert reports[0]["lost"]["sea"] == {}
    warnings = json.loads(whole.training_run.read_text())["warnings"]
    assert any(text.startswith("streamed pairs were neither validated") for text in warnings)
    assert any(text.startswith(f"sky: {lost['count'] + lacking['count']} sample") for text in warnings)


def test_two_ranks_that_were_killed_share_the_tars_out_and_end_bit_equal(project: Workspace, tmp_path: Path) -> None:
    """Each rank has a loader process, so a source has two readers; each of them goes on where it was."""
    whole, killed = copy_project(project, tmp_path / "whole"), copy_project(project, tmp_path / "killed")
    for workspace in (whole, killed):
        set_params(workspace, *settings(project, "machine.loader_workers=1", "machine.ranks=2"))
    assert "streams  read as they come by 2 readers" in train(whole)

    child = start_training(killed)
    wait_for_step(killed, 6, child)
    child.kill()
    child.wait()
    assert "resumes after step" in train(killed)
    assert (whole.model / WEIGHTS).read_bytes() == (killed.model / WEIGHTS).read_bytes()
    for name in ("stream-00001-of-00002.json", "stream-00002-of-00002.json"):
        last = [max(its.runs.glob(f"*/checkpoints/*/{name}")).read_text() for its in (whole, killed)]
        assert last[0] == last[1]
    (log,) = whole.runs.glob("*/metrics.jsonl")
    assert {json.loads(line)["source"] for line in log.read_text().splitlines()} == {"sea", "sky"}


def test_other_tars_are_another_run_and_older_runs_are_what_they_were(project: Workspace, tmp_path: Path) -> None:
    streamed = make_spec(recipe(*settings(project)), project)
    assert make_spec(recipe(*settings(project)), project).name == streamed.name
    shutil.copytree(project.root / "tars", tmp_path / "tars")
    (tmp_path / "tars/sky/00005.tar").rename(tmp_path / "tars/sky/00006.tar")
    (tmp_path / "tars/sky/00005_stats.json").rename(tmp_path / "tars/sky/00006_stats.json")
    moved = [text.replace(str(project.root), str(tmp_path)) for text in settings(project)]
    assert make_spec(recipe(*moved), project).description["streams"] != streamed.description["streams"]

    indexed = make_spec(recipe(), project).description
    assert not {"reading", "streaming"} & indexed["train"].keys()
    assert "streams" not in indexed
    ignored = recipe(*settings(project), "train.reading=indexed", "train.epochs=12", "train.valid_checks=2")
    assert make_spec(ignored, project).description == indexed


def test_limits_of_streamed_pairs_are_of_the_run(project: Workspace) -> None:
    """Those of prepared pairs are in the digest of their data, and the usual ones in no fingerprint."""
    usual = make_spec(recipe(*settings(project)), project).description
    assert "prepare" not in usual
    other = make_spec(recipe(*settings(project), "prepare.max_pixels=1000"), project).description
    assert differences(usual, other) == ["prepare.max_pixels: 50000000 -> 1000"]
    assert "prepare" not in make_spec(recipe("prepare.max_pixels=1000"), project).description


def test_where_a_checkpoint_has_no_places(project: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run's own is refused; one of an indexed run, to go on from, has none, and its sources are named."""
    params = recipe(*settings(project))
    spec = replace(make_spec(params, project), parent=SimpleNamespace(path=tmp_path / "parent"))  # type: ignore[arg-type]
    run: Any = SimpleNamespace(params=params, spec=spec, ranks=SimpleNamespace(rank=0, world_size=1, is_first=True))
    checkpoints: Any = SimpleNamespace(path=lambda step: tmp_path / f"{step}", keep_beside=lambda _beside: None)
    caplog.set_level("INFO", "zerovl")
    assert places_of(run, checkpoints, 0)
    assert not caplog.messages
    found = places_of(run, checkpoints, 3)
    assert found
    assert not found.begin.first
    assert caplog.messages == [
        f"sea, sky: read from the first tar on, as {tmp_path}/parent was not trained on these tars"
    ]
    (tmp_path / "3").mkdir()
    with pytest.raises(ZeroVLError, match=r"has no stream-00001-of-00001\.json"):
        places_of(run, checkpoints, 3)


def test_a_last_checkpoint_that_was_not_written_leaves_losses_unknown(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(workspace=Workspace(tmp_path), spec=SimpleNamespace(sizes={"sea": 48}))
    assert write_report(run, tmp_path / "step-00000018", 288)[1].startswith("what was lost of streamed pairs is not")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.streaming.sources=[{name: a, urls: [none/*.tar]}]", r"a: urls: 'none/\*\.tar': .* was looked for in /"),
        ("train.streaming.sources=[{name: a, urls: [/none/*.tar]}]", r"there is no such tar; correct the address$"),
        ("train.streaming.sources=[{name: a, urls: ['x{0..3.tar']}]", r"'x\{0\.\.3\.tar': its braces do not close"),
        (
            "train.streaming.sources=[{name: a, urls: ['pipe:cat x.tar']}]",
            r"is not known, as 1 of 1 have no .* \(pipe:cat x\.tar\)",
        ),
        ("train.batch_size=64", r"sea: 48 pairs, fewer than train\.batch_size 64"),
    ],
)
def test_what_cannot_be_streamed_is_refused(override: str, message: str, project: Workspace) -> None:
    with pytest.raises(ZeroVLError, match=message):
        make_spec(recipe(*settings(project), override), project)


@pytest.mark.parametrize(
    ("ranks", "workers", "fix"),
    [(2, 4, r"set machine\.loader_workers to 3 or less"), (8, 1, r"write smaller tars, or set machine\.ranks to 6 or")],
)
def test_more_readers_than_tars_are_refused(ranks: int, workers: int, fix: str) -> None:
    source = StreamedSource("sea", ["tar"] * 6, 48, lambda chapter: [])
    check_tars(source, Layout({"sea": ""}, 1, 6, 2, 10))
    with pytest.raises(ZeroVLError, match=rf"sea: 6 tars for 8 readers \({ranks} ranks x {workers} machine.* {fix}"):
        check_tars(source, Layout({"sea": ""}, ranks, workers, 2, 10))
