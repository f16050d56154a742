"""`make ui`: one terminal starts everything, Ctrl-C ends it without a trace."""

import base64
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.factory import Factory, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PASSWORD = "team:a-long-password"


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    made = Factory(tmp_path)
    made.environment["PREFECT_SERVER_API_AUTH_STRING"] = PASSWORD
    return made


def start(factory: Factory, reports_port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.server.ui", "--port", str(factory.port), "--reports-port", str(reports_port)],
        cwd=factory.root,
        env=factory.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_starts_with_a_password_runs_and_ends_with_everything(factory: Factory) -> None:
    page = factory.paths.reports / "an-earlier-run" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text("what the links point to")
    reports_port = free_port()
    ui = start(factory, reports_port)
    try:
        assert ui.stdout is not None
        said = ""
        while "Ctrl-C ends" not in said:
            line = ui.stdout.readline()
            assert line, said
            said += line
        assert f"the UI        http://127.0.0.1:{factory.port}" in said
        assert "deployment train/train: created" in said
        url = f"http://127.0.0.1:{factory.port}/api/deployments/name/train/train"
        assert httpx.get(url).status_code == 401
        linked = httpx.get(f"http://127.0.0.1:{reports_port}/an-earlier-run/page.html").raise_for_status()
        assert linked.text == "what the links point to"
        header = {"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}
        deployment = httpx.get(url, headers=header).raise_for_status().json()
        made = httpx.post(
            f"http://127.0.0.1:{factory.port}/api/deployments/{deployment['id']}/create_flow_run",
            headers=header,
            json={"parameters": {"overrides": ["train.epochs=200", "machine.checkpoint_steps=100000"]}},
        )
        made.raise_for_status()
        factory.wait_for_steps(10)
        ui.send_signal(signal.SIGINT)
        rest, _ = ui.communicate(timeout=120)
        assert ui.returncode == 0, rest
        assert not factory.processes()
        assert list(factory.paths.runs.glob("*/checkpoints/*")), "training saved no checkpoint"
    finally:
        ui.kill()
        factory.stop()


def test_a_port_that_is_taken(factory: Factory) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", factory.port))
        taken.listen()
        ui = start(factory, free_port())
        said, _ = ui.communicate(timeout=120)
    assert ui.returncode == 1
    assert f"port {factory.port} on 127.0.0.1: Address already in use; is `make ui` running already?" in said
