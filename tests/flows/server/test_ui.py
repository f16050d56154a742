"""`make ui`: one terminal starts everything, Ctrl-C ends it without a trace."""

import base64
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import prefect_database
from tests.support.factory import Factory
from tests.support.ports import free_port
from tests.support.prefect_api import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PASSWORD = "team:a-long-password"


def _home(project: Factory) -> Path:
    return project.folder / "prefect-of-ui"


def start(project: Factory, port: int, reports_port: int) -> subprocess.Popen[str]:
    """`make ui` with a password and a database of its own."""
    environment = {
        **project.environment,
        "PREFECT_HOME": str(_home(project)),
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
    }
    environment.pop("PREFECT_API_URL")
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server.ui", "--port", str(port), "--reports-port", str(reports_port)],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_starts_with_a_password_runs_and_ends_with_everything(project: Factory, new_database: Path) -> None:
    project.stop()  # of the tests before
    prefect_database.take(new_database, _home(project))
    before = set(project.logs_of_training())
    page = project.paths.reports / "an-earlier-run" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text("what the links point to")
    port, reports_port = free_port(), free_port()
    ui = start(project, port, reports_port)
    try:
        assert ui.stdout is not None
        said = ""
        while "Ctrl-C ends" not in said:
            line = ui.stdout.readline()
            assert line, said
            said += line
        assert f"the UI        http://127.0.0.1:{port}" in said
        assert f"the reports   http://127.0.0.1:{reports_port}\n" in said
        assert "deployment train/train: created" in said
        assert "git           branches runs/* stay here: there is no git remote" in said
        url = f"http://127.0.0.1:{port}/api/deployments/name/train/train"
        assert httpx.get(url).status_code == 401
        linked = httpx.get(f"http://127.0.0.1:{reports_port}/an-earlier-run/page.html").raise_for_status()
        assert linked.text == "what the links point to"
        header = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}
        deployment = httpx.get(url, headers=header).raise_for_status().json()
        project.slow_from(3)
        made = httpx.post(
            f"http://127.0.0.1:{port}/api/deployments/{deployment['id']}/create_flow_run",
            headers=header,
            json={"parameters": {"overrides": ["train.epochs=40", "machine.checkpoint_steps=100000"]}},
        )
        made.raise_for_status()

        def trains() -> list[Path]:
            return [log for log, steps in project.logs_of_training().items() if log not in before and steps >= 4]

        (log,) = wait_for("training", trains)
        ui.send_signal(signal.SIGINT)
        rest, _ = ui.communicate(timeout=PATIENCE)
        assert ui.returncode == 0, rest
        assert not project.processes()
        assert list(log.parent.glob("checkpoints/*")), "training saved no checkpoint"
    finally:
        ui.kill()
        project.stop()


def test_a_port_that_is_taken(project: Factory) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ui = start(project, port, free_port())
        said, _ = ui.communicate(timeout=PATIENCE)
    assert ui.returncode == 1
    assert f"port {port} on 127.0.0.1: Address already in use; is `make ui` running already?" in said
