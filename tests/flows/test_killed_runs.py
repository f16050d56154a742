"""Cancelled, killed and cut off: nothing gets lost, nothing keeps running.

All runs of this file but the waiting ones have the same parameters, so each goes on with the training that the one
before left, and the last of them must have the weights of a run that nobody disturbed.
"""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page

from flows.runtime.liveness import LOST
from tests.support.browser import keep, press_cancel, shows
from tests.support.factory import Factory, kill
from tests.support.prefect_api import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LONG = ["train.epochs=12", "machine.ranks=2"]  # 72 steps, of which the interruptions take some fifty
WAITING = "waiting for the CPU"
CANCELLED = r"cancelled; .*interrupted by SIG\w+ after step \d+: saved in .*; run it again"


class Chain:
    """The training that all runs of this file go on with."""

    def __init__(self, factory: Factory) -> None:
        self.factory, self.others = factory, set(factory.logs_of_training())

    def steps(self) -> int:
        logs = self.factory.logs_of_training()
        return max((steps for log, steps in logs.items() if log not in self.others), default=0)

    def wait_for_more(self, steps: int, run: str | None = None) -> None:
        """Until it has gone on by so many steps; from then on it is slow."""
        before = self.steps()
        self.factory.slow_from(before + steps)
        what = f"{steps} more steps after {before}"
        if run is None:
            wait_for(what, lambda: self.steps() >= before + steps)
        else:
            self.factory.wait_while(run, what, lambda: self.steps() >= before + steps)

    def start(self) -> str:
        return self.factory.run("train/train", overrides=LONG, after="register")

    def start_waiting(self, behind: str) -> str:
        """A run that has come to its training while the run `behind` trains."""
        run = self.factory.run("train/train", overrides=["train.epochs=3"], after="nothing")
        self.factory.said(run, f"{WAITING}: run {self.factory.name(behind)} has cpu since")
        return run


@pytest.fixture(scope="module")
def chain(factory: Factory, first_run: str) -> Chain:
    factory.slow_from(None)
    factory.completed(first_run)
    return Chain(factory)


@pytest.fixture(scope="module")
def lost(factory: Factory, chain: Chain) -> tuple[str, str]:
    """Runs whose worker was killed: one that trained and whose process was killed too, one that waited."""
    training = chain.start()
    chain.wait_for_more(6, training)
    waiting = chain.start_waiting(training)
    engine = factory.engine(training)
    assert factory.worker
    kill(factory.worker)
    kill(engine)
    return training, waiting


def test_a_cancelled_run_and_a_killed_one_that_waits(factory: Factory, chain: Chain, page: Page | None) -> None:
    run = chain.start()
    chain.wait_for_more(8, run)
    # The process of a run is killed: it is marked as crashed, and the one that trains goes on.
    waiting = chain.start_waiting(run)
    kill(factory.engine(waiting))
    factory.gone(waiting)
    assert factory.wait(waiting)["type"] == "CRASHED"
    assert factory.state(run)["type"] == "RUNNING"
    if page:
        press_cancel(factory, page, run)
    else:
        factory.cancel(run)
    factory.gone()
    assert factory.wait(run)["name"] == "Cancelled"
    factory.said(run, CANCELLED)
    assert factory.logs(run).rstrip().endswith("run it again with the same parameters to go on")
    if page:
        shows(page, "Cancelled")
        keep(page, "cancelled")
        page.goto("about:blank")


def test_a_killed_worker(factory: Factory, chain: Chain, lost: tuple[str, str]) -> None:
    """What it started ends: training saves first, also where the run's own process is gone too."""
    training, waiting = lost
    saved = chain.steps()
    factory.gone()
    assert factory.wait(waiting)["type"] == "CRASHED"
    factory.said(training, "resumes after step")
    factory.start_worker()
    again = chain.start()
    chain.wait_for_more(3, again)
    factory.said(again, r"resumes after step \d+")
    assert _resumed_at(factory, again) >= saved - 1  # all that was logged, but for a step in the making
    # The ranks' parent is killed.
    for process in factory.launchers(again):
        kill(process)
    factory.gone(again)
    state = factory.wait(again)
    assert state["type"] == "FAILED"
    assert "train" in state["message"]


def _resumed_at(factory: Factory, run: str) -> int:
    lines = factory.logs(run).splitlines()
    line = next(line for line in lines if "resumes after step" in line)
    return int(line.partition("resumes after step")[2].split()[0].rstrip(",.;:"))


def test_a_run_from_a_terminal_is_cancelled_too(factory: Factory, chain: Chain) -> None:
    """It has no worker that would hear of it."""
    terminal = factory.start("flows.train", "--overrides", *LONG, "--after", "register")
    chain.wait_for_more(6)
    # Of no deployment: a lost run of one may still be called running.
    its = {"state": {"type": {"any_": ["RUNNING"]}}, "deployment_id": {"is_null_": True}}
    (found,) = factory.api("POST", "/flow_runs/filter", {"flow_runs": its})

    def heard_of() -> bool:
        wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "related": {"id": ["prefect.tag.zerovl"]}}
        events = factory.api("POST", "/events/filter", {"filter": wanted, "limit": 50})["events"]
        return any(each["resource"]["prefect.resource.id"].endswith(found["id"]) for each in events)

    wait_for("a heartbeat, without which it would be taken for lost", heard_of)
    factory.command("-m", "prefect", "flow-run", "cancel", found["id"])
    factory.gone()
    assert terminal.wait() != 0
    assert factory.wait(found["id"])["name"] == "Cancelled"
    factory.said(found["id"], CANCELLED)
    assert "Crash detected!" not in factory.logs(found["id"])
    assert "Crashed" not in factory.states_of(found["id"])


def test_a_killed_rank_two_runs_at_once_and_a_server_that_is_away(
    factory: Factory, chain: Chain, lost: tuple[str, str]
) -> None:
    first = chain.start()
    chain.wait_for_more(6, first)
    second = chain.start_waiting(first)
    ranks = factory.ranks()
    assert len(ranks) == 2
    kill(ranks[0])
    factory.said(first, "restart 1 of 3")
    # The run whose worker and process were killed long ago has been found by its silence.
    assert factory.wait(lost[0])["type"] == "CRASHED"
    assert LOST in factory.state(lost[0])["message"]
    # A run that the server takes for lost, but that lives, takes its state back.
    crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": LOST}, "force": True}
    factory.api("POST", f"/flow_runs/{first}/set_state", crashed)
    wait_for("its state again", lambda: factory.state(first)["type"] == "RUNNING")
    assert factory.server
    kill(factory.server)
    chain.wait_for_more(10)  # training goes on
    factory.start_server()
    factory.slow_from(None)
    wait_for("the first run's end", lambda: factory.state(first)["type"] == "COMPLETED")
    factory.completed(second)
    factory.gone()
    # Undisturbed, in the user's own checkout and without the checkpoints of the others: the same weights.
    made = factory.version(2)
    assert made["by"] == f"run {factory.name(first)}"
    assert made["provenance"]["params"]["train"]["epochs"] == 12.0
    apart = {"ZEROVL_FLOWS": str(factory.root / ".apart")}
    made_again = json.loads(factory.command("-m", "flows.reproduce", "--release", "zerovl@2", **apart))
    assert made_again == {"release": "zerovl@2", "verdict": "equal", "largest_difference": 0.0}
    assert {run["state"]["type"] for run in factory.runs_of("reproduce")} == {"COMPLETED"}
