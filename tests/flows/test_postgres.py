"""The server on PostgreSQL, by one setting. Skipped where PostgreSQL is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.factory import Factory
from tests.support.ports import free_port
from tests.support.prefect_api import wait_for

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PROGRAMS is None or not (PROGRAMS / "initdb").exists(), reason="no PostgreSQL on this machine"),
]


def postgres(*words: str) -> None:
    """A program of PostgreSQL, which refuses to run as root."""
    assert PROGRAMS
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, str(PROGRAMS / words[0]), *words[1:]], check=True, capture_output=True, cwd="/")


@pytest.fixture
def database() -> Iterator[str]:
    # Not below pytest's folder, which other users may not enter.
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data, port = str(folder / "data"), free_port()
    try:
        postgres("initdb", "-D", data, "-U", "zerovl", "--auth", "trust")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
        postgres("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        postgres("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "zerovl", "prefect")
        yield f"postgresql+asyncpg://zerovl@127.0.0.1:{port}/prefect"
        postgres("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_deployments_schedule_and_a_run(tmp_path: Path, database: str) -> None:
    factory = Factory(tmp_path)
    factory.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    try:
        factory.start_server()
        assert "deployment train/train: created" in factory.command("-m", "flows.server.deploy")
        assert "nothing changed" in factory.command("-m", "flows.server.deploy")
        factory.start_worker()
        run = factory.run("train/train", revision="no-such-branch")
        state = factory.wait(run)
        assert state["type"] == "FAILED"
        assert "git knows no revision 'no-such-branch'" in state["message"]
        factory.said(run, "Beginning flow run")
        wait_for("runs of the schedule", lambda: factory.api("POST", "/flow_runs/count", {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}
        }))  # fmt: skip
        assert not list((tmp_path / "prefect").glob("*.db")), "the server kept SQLite all the same"
    finally:
        factory.stop()
