"""Publishing where a disk is full or a store is down, and what follows a release: retrain, promote, roll back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.factory import Factory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STORE = "s3://models"


def mount(folder: Path, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "zerovl-test", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def small_disk(factory: Factory) -> Iterator[Path | None]:
    """A folder on a disk that is too small for a release; None without the right to mount one."""
    folder = factory.folder / "small-disk"
    folder.mkdir()
    if not mount(folder, "size=64k"):
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def lost(factory: Factory, first_run: str, small_disk: Path | None) -> dict[str, str]:
    """Runs at the same time whose release cannot be published: to a full disk, to a server that is down."""
    factory.slow_from(None)
    factory.completed(first_run)  # the same model: all but its publishing comes from DVC's cache
    stores = [STORE, *([str(small_disk)] if small_disk else [])]
    return {store: factory.run("train/train", overrides=[f"register.store={store}"]) for store in stores}


def test_a_disk_that_fills_while_publishing(factory: Factory, lost: dict[str, str], small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("a small disk needs the right to mount one")
    run = lost[str(small_disk)]
    factory.said(run, "Retry 1/3")
    factory.said(run, f"{small_disk}: .*free some space and run it again")
    assert not list(small_disk.rglob("versions/*.json"))
    assert mount(small_disk, "remount", "size=512m")
    factory.completed(run)  # by one of its own attempts; a run that has none left: the next test
    record = json.loads((small_disk / "zerovl" / "versions" / "1.json").read_text())
    weights = "model.safetensors"
    assert record["files"][weights]["sha256"] == factory.version(1)["files"][weights]["sha256"]
    factory.command("-m", "zerovl.cli", "registry", "verify", "zerovl@production", ZEROVL_STORE=str(small_disk))


# As on a machine that has no more than torch and boto3 of all this; it loads what it is told, line by line.
CLEAN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dvc", "prefect", "great_expectations", "dvclive", "gto", "flows"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import zerovl
for reference in sys.stdin:
    model = zerovl.load(reference.strip())
    scores = model.encode_text(["a red star", "two blue squares"]) @ model.encode_text(["a red star"]).T
    print(tuple(scores.shape), flush=True)
"""


@pytest.fixture
def clean_program(factory: Factory) -> Iterator[Callable[[str], str]]:
    """Loads a release in a program that runs on from one to the next; returns what it says."""
    pipe, environment = subprocess.PIPE, {**factory.environment, "ZEROVL_STORE": STORE}
    command = [sys.executable, "-c", CLEAN]
    program = subprocess.Popen(command, cwd=factory.root, env=environment, stdin=pipe, stdout=pipe, text=True)

    def load(reference: str) -> str:
        assert program.stdin
        assert program.stdout
        print(reference, file=program.stdin, flush=True)
        return program.stdout.readline()

    with program:
        yield load
        assert program.stdin
        program.stdin.close()


def test_releases_on_s3_from_a_server_that_is_down_to_a_rollback(
    factory: Factory, lost: dict[str, str], clean_program: Callable[[str], str]
) -> None:
    state = factory.wait(lost[STORE])
    assert state["type"] == "FAILED"
    assert STORE in state["message"]
    assert factory.s3_endpoint in state["message"]
    factory.said(lost[STORE], "Retry 3/3")
    factory.start_s3("models")
    first = factory.run("train/train", overrides=[f"register.store={STORE}"])
    factory.completed(first)
    factory.said(first, "is cached - skipping run")  # what was finished is not done again
    factory.said(first, "registered zerovl@1 in s3://models")
    again = factory.run("train/train", overrides=[f"register.store={STORE}"])
    other = factory.run(
        "retrain/retrain-weekly",
        overrides=["train.epochs=1", f"register.store={STORE}", "register.gate.min_rsum=600"],
        from_production=True,
        force=True,
    )
    factory.completed(again)
    factory.said(again, "this model is zerovl@1 in s3://models already")
    factory.completed(other)
    factory.said(other, "starting from zerovl@1")
    assert factory.state(other)["name"] == "Refused"
    factory.environment["ZEROVL_STORE"] = STORE
    try:
        # Made again in a checkout that has never seen the model it started from.
        made_again = json.loads(factory.command("-m", "flows.reproduce", "--release", "zerovl@2"))
        assert made_again["verdict"] == "equal"
        assert clean_program("s3://models/zerovl@production") == "(2, 1)\n"
        promote = ["-m", "flows.promote", "--release", "zerovl@2", "--why", "by hand"]
        with pytest.raises(AssertionError, match=r"zerovl@2 was refused by the gate: FAILED, min_rsum"):
            factory.command(*promote)
        assert "zerovl@1" in factory.command("-m", "zerovl.cli", "registry", "show", "zerovl@production")
        assert "the gate refused zerovl@2" in factory.command(*promote, "--over-the-gate")
        assert "zerovl@2" in factory.command("-m", "zerovl.cli", "registry", "show", "zerovl@production")
        assert clean_program("s3://models/zerovl@production") == "(2, 1)\n"
        factory.command("-m", "flows.rollback", "--why", "worse in search")
        history = factory.command("-m", "zerovl.cli", "registry", "history", "zerovl@production")
        assert history.index("worse in search") < history.index("promoted over the gate") < history.index("by hand")
        assert f"run {factory.name(first)}" in history
        assert "zerovl@1" in factory.command("-m", "zerovl.cli", "registry", "show", "zerovl@production")
    finally:
        factory.environment.pop("ZEROVL_STORE")
