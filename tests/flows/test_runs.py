"""Deployments against a real server and worker: nothing gets lost, nothing keeps running.

One factory serves all tests in order; each leaves server and worker running and no run.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.factory import Factory, kill, wait_for
from tests.support.project_copy import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LONG = ["train.epochs=200"]  # 1200 steps: some must be left when the last of many runs has come to the lease


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    made = Factory(tmp_path_factory.mktemp("factory"))
    try:
        made.start_server()
        assert "deployment train/train: created" in made.command("-m", "flows.server.deploy")
        made.start_worker()
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def _whole(factory: Factory) -> None:
    """Each test starts with server and worker alive."""
    for process in (factory.server, factory.worker):
        assert process
        assert process.poll() is None


def test_a_run_from_the_form_to_the_release(factory: Factory) -> None:
    run = factory.run("train/train", overrides=["train.epochs=2"])
    factory.completed(run)
    factory.gone(15)
    name = factory.name(run)
    shown = factory.artifacts(run)
    for stage in ("prepare", "validate", "train", "evaluate", "register", "push"):
        assert shown[f"progress-{stage}"]["data"] == 100, stage
    assert shown["validation-rules"]["type"] == "table"
    assert "(data:image/png;base64," in shown["gallery"]["data"]
    assert "(data:image/svg+xml;base64," in shown["curves"]["data"]
    assert f"http://reports.test/{name}/evaluation/report.html" in shown["report"]["data"]
    assert f"http://reports.test/{name}/validation/index.html" in shown["validation-page"]["data"]
    assert "zerovl@1" in shown["summary"]["data"]
    assert "No model is in production yet" in shown["summary"]["data"]
    # The release names a commit that has its parameters, and the branch has the locks.
    origin = factory.version(1)["provenance"]
    assert not origin["git"]["dirty"]
    assert factory.version(1)["by"] == f"run {name}"
    assert git(factory.root, "rev-parse", f"runs/{name}~1") == origin["git"]["commit"]
    assert "epochs: 2.0" in git(factory.root, "show", f"{origin['git']['commit']}:params.yaml")
    assert "evaluate" in git(factory.root, "show", f"runs/{name}:dvc.lock")
    # The user's checkout is as it was, the run's own is gone, its reports stay.
    assert git(factory.root, "status", "--porcelain") == ""
    assert not (factory.paths.checkouts / name).exists()
    assert (factory.paths.reports / name / "evaluation" / "report.html").is_file()


def test_deploying_again_changes_nothing(factory: Factory) -> None:
    assert factory.command("-m", "flows.server.deploy") == "deployments are up to date, nothing changed\n"
    path = factory.root / "prefect.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("0 3 * * 1", "0 4 * * 1"))
        assert factory.command("-m", "flows.server.deploy") == "deployment retrain/retrain-weekly: changed schedules\n"
    finally:
        path.write_text(before)
    # What someone switches off in the UI stays off.
    found = factory.api("GET", "/deployments/name/retrain/retrain-weekly")
    schedule = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
    factory.api("PATCH", schedule, {"active": False})
    assert factory.command("-m", "flows.server.deploy") == "deployment retrain/retrain-weekly: changed schedules\n"
    found = factory.api("GET", "/deployments/name/retrain/retrain-weekly")
    assert [each["active"] for each in found["schedules"]] == [False]
    schedule = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
    factory.api("PATCH", schedule, {"active": True})


def test_the_schedule_is_planned(factory: Factory) -> None:
    """The server's scheduler really makes runs of it; a schedule that is listed but never fires looks the same."""

    def planned() -> list[str]:
        rows = factory.api("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        return sorted(row["expected_start_time"] for row in rows if row["auto_scheduled"])

    times = wait_for("runs of the schedule", planned, 120)
    assert all(time[11:16] == "03:00" for time in times), times


def test_nothing_new_and_an_event(factory: Factory) -> None:
    run = factory.run("retrain/retrain-weekly", overrides=["train.epochs=2"])
    state = factory.wait(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "NothingNew"), factory.logs(run)
    assert "those of zerovl@1" in state["message"]
    factory.command(
        *("-m", "prefect", "event", "emit", "zerovl.new-data", "--resource-id", "zerovl.data"),
        *("--payload", '{"reason": "a crate of pictures", "revision": "no-such-branch"}'),
    )

    def started() -> str | None:
        rows = factory.api("POST", "/flow_runs/filter", {"deployments": {"name": {"any_": ["retrain-on-new-data"]}}})
        return str(rows[0]["id"]) if rows else None

    run = wait_for("a run of the event", started, 60)
    state = factory.wait(run)
    assert state["type"] == "FAILED"
    factory.said(run, "asked for by: a crate of pictures")
    assert "git knows no revision 'no-such-branch'" in state["message"]


def test_cancelled_then_run_again(factory: Factory) -> None:
    """The run again resumes, and its weights are those of a run that nobody disturbed (in test_interrupted...)."""
    run = factory.run("train/train", overrides=LONG, after="register")
    factory.wait_for_steps(40)
    factory.command("-m", "prefect", "flow-run", "cancel", run)  # the button: in test_browser
    factory.gone(15)
    assert factory.wait(run, 30)["name"] == "Cancelled"
    factory.said(run, r"interrupted by SIG\w+ after step \d+: saved in")
    before = factory.steps()
    again = factory.run("train/train", overrides=LONG, after="register")
    factory.wait_for_steps(before + 10)
    factory.said(again, "resumes after step")
    # The engine is killed: the run is marked as crashed, its training saves and ends.
    kill(factory.engine())
    factory.gone(30)
    assert factory.wait(again, 120)["type"] == "CRASHED"
    # The worker is killed: so is what it started.
    third = factory.run("train/train", overrides=LONG, after="register")
    factory.wait_for_steps(before + 40)
    assert factory.worker
    kill(factory.worker)
    factory.gone(30)
    assert factory.wait(third, 150)["type"] == "CRASHED"
    factory.start_worker()


def test_a_run_from_a_terminal_is_cancelled_too(factory: Factory) -> None:
    """It has no worker that would hear of it."""
    before = factory.steps()
    terminal = factory.start("flows.train", "--overrides", *LONG, "--after", "register")
    factory.wait_for_steps(before + 10)
    (found,) = factory.api("POST", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    factory.command("-m", "prefect", "flow-run", "cancel", found["id"])
    assert factory.wait(found["id"], 120)["name"] == "Cancelled"
    factory.gone(30)
    assert terminal.wait(10) != 0


@pytest.mark.parametrize("who", ["both", "launcher"])
def test_killed_then_run_again(factory: Factory, who: str) -> None:
    run = factory.run("train/train", overrides=LONG, after="register")
    before = factory.steps()
    factory.wait_for_steps(before + 20)
    if who == "both":
        assert factory.worker
        engine = factory.engine()
        kill(factory.worker)
        kill(engine)
    else:
        for process in factory.of_run("bin/zerovl train"):
            kill(process)
    factory.gone(30)
    state = factory.wait(run, 150)
    assert state["type"] == ("CRASHED" if who == "both" else "FAILED")
    if who == "both":
        factory.start_worker()
    else:
        assert "train" in state["message"]


def test_a_killed_rank_two_runs_at_once_and_a_server_that_is_away(factory: Factory) -> None:
    before = factory.steps()
    first = factory.run("train/train", overrides=LONG, after="register")
    factory.wait_for_steps(before + 20)
    second = factory.run("train/train", overrides=["train.epochs=3"], after="register")
    wait_for("the second to wait", lambda: "waiting for the GPU lock" in factory.logs(second), 200)
    ranks = [each for each in factory.of_run("zerovl.training.worker") if each.name() != "pt_data_worker"]
    assert len(ranks) == 2
    kill(ranks[0])
    wait_for("a restart", lambda: "restart 1 of 3" in factory.logs(first), 60)
    assert factory.server
    kill(factory.server)
    away, steps = time.monotonic(), factory.steps()
    factory.wait_for_steps(steps + 30)  # training goes on
    time.sleep(max(0.0, 60.0 - (time.monotonic() - away)))
    factory.start_server()
    # Where the server's clock ran out before it heard from the run, that is Crashed until it takes its state back.
    wait_for("the first run's end", lambda: factory.state(first)["type"] == "COMPLETED", 800)
    factory.completed(second)
    factory.gone(15)
    factory.said(second, f"run {factory.name(first)}, since")
    # Undisturbed, in the user's own checkout and without the checkpoints of the others: the same weights.
    assert factory.version(2)["provenance"]["params"]["train"]["epochs"] == 200.0  # not the second run's
    weights = factory.version(2)["files"]["model.safetensors"]["sha256"]
    assert factory.version(3)["files"]["model.safetensors"]["sha256"] != weights
    factory.environment["ZEROVL_FLOWS"] = str(factory.root / ".apart")
    made_again = json.loads(factory.command("-m", "flows.reproduce", "--release", "zerovl@2"))
    assert made_again == {"release": "zerovl@2", "verdict": "equal", "largest_difference": 0.0}
    states = [
        run["state"]["type"]
        for run in factory.api("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["reproduce"]}}})
    ]
    assert states == ["COMPLETED"]  # longer than the silence that marks a lost run


def mount(folder: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "zerovl-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")


def test_a_disk_that_fills_while_publishing(factory: Factory) -> None:
    store = factory.root.parent / "small-disk"
    store.mkdir()
    mount(store, "size=256k")
    try:
        published = ["train.epochs=2", f"register.store={store}"]
        lost = factory.run("train/train", overrides=published)
        state = factory.wait(lost)
        assert state["type"] == "FAILED", state
        assert f"{store}: " in state["message"]
        assert "free some space and run it again" in state["message"]
        factory.said(lost, "Retry 3/3")
        assert not list(store.rglob("versions/*.json"))
        mount(store, "remount", "size=512m")
        factory.completed(factory.run("train/train", overrides=published))
        record = json.loads((store / "zerovl" / "versions" / "1.json").read_text())
        weights = "model.safetensors"
        assert record["files"][weights]["sha256"] == factory.version(1)["files"][weights]["sha256"]
        factory.environment["ZEROVL_STORE"] = str(store)
        factory.command("-m", "zerovl.cli", "registry", "verify", "zerovl@production")
    finally:
        factory.environment.pop("ZEROVL_STORE", None)
        subprocess.run(["umount", str(store)], check=True)


# As on a machine that has no more than torch and boto3 of all this.
CLEAN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dvc", "prefect", "great_expectations", "dvclive", "gto", "flows"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import zerovl
model = zerovl.load(sys.argv[1])
print(tuple((model.encode_text(["a red star", "two blue squares"]) @ model.encode_text(["a red star"]).T).shape))
"""


def test_releases_on_s3_from_a_server_that_is_down_to_a_rollback(factory: Factory) -> None:
    on_s3 = ["train.epochs=2", "register.store=s3://models"]
    lost = factory.run("train/train", overrides=on_s3)
    state = factory.wait(lost, 800)
    assert state["type"] == "FAILED"
    assert "s3://models" in state["message"]
    assert factory.s3_endpoint in state["message"]
    factory.said(lost, "Retry 3/3")
    factory.start_s3("models")
    first = factory.run("train/train", overrides=on_s3)
    factory.completed(first)
    factory.said(first, "is cached - skipping run")  # what was finished is not done again
    again = factory.run("train/train", overrides=on_s3)
    factory.completed(again)
    factory.said(first, "registered zerovl@1 in s3://models")
    factory.said(again, "registered zerovl@1 in s3://models")
    other = factory.run(
        "retrain/retrain-weekly",
        overrides=["train.epochs=3", on_s3[1]],
        after="register",
        from_production=True,
        force=True,
    )
    factory.completed(other)
    factory.said(other, "starting from zerovl@1")
    factory.environment["ZEROVL_STORE"] = "s3://models"
    # Made again in a checkout that has never seen the model it started from.
    made_again = json.loads(factory.command("-m", "flows.reproduce", "--release", "zerovl@2"))
    assert made_again["verdict"] == "equal"
    assert "(2, 1)" in factory.command("-c", CLEAN, "s3://models/zerovl@production")
    factory.command("-m", "flows.promote", "--release", "zerovl@2", "--why", "by hand")
    assert "zerovl@2" in factory.command("-m", "zerovl.cli", "registry", "show", "zerovl@production")
    assert "(2, 1)" in factory.command("-c", CLEAN, "s3://models/zerovl@production")
    factory.command("-m", "flows.rollback", "--why", "worse in search")
    history = factory.command("-m", "zerovl.cli", "registry", "history", "zerovl@production")
    assert history.index("worse in search") < history.index("by hand")
    assert f"run {factory.name(first)}" in history
    assert "zerovl@1" in factory.command("-m", "zerovl.cli", "registry", "show", "zerovl@production")
