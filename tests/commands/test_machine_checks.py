"""What `zerovl doctor` looks at whatever the parameters say: torch, leases, disk, server."""

from __future__ import annotations

import builtins
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zerovl import gpu_leases
from zerovl.commands import machine_checks


@pytest.fixture
def prefect_url() -> Iterator[str]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_torchvision_of_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = {finding.subject: finding for finding in machine_checks.check_torch()}
    assert found["torch"].level == "ok"
    assert found["torchvision"].level == "FAIL"
    assert "nms does not exist); install the torchvision that was built for this torch" in found["torchvision"].text


def test_who_has_which_gpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(machine_checks.check_leases()) == []
    turn = gpu_leases.take(1, gpu_leases.CPU, "run slow", print)
    (found,) = machine_checks.check_leases()
    assert found.text.startswith("run slow has cpu since 2")
    turn.release()
    monkeypatch.setenv("ZEROVL_DEVICE", "auto")
    monkeypatch.setenv("ZEROVL_GPUS", "GPU-a,GPU-b")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease = gpu_leases.take(1, ["GPU-b"], "run fast", print)
    (found,) = machine_checks.check_leases()
    lease.release()
    assert found.text.startswith("1 of 2 GPUs free; run fast has GPU-b since 2")
    monkeypatch.setenv("ZEROVL_GPUS", "MIG-a,MIG-b,MIG-c")
    (found,) = machine_checks.check_leases()
    assert found.text == "3 of 3 MIG devices, of which a process sees one, free; nobody has any"


def test_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(project)
    for free, level in ((10**9, "note"), (10**12, "ok")):
        monkeypatch.setattr(
            "zerovl.commands.machine_checks.shutil.disk_usage", lambda folder, free=free: usage._replace(free=free)
        )
        assert next(machine_checks.check_disk(project)).level == level


def test_prefect(prefect_url: str) -> None:
    assert next(machine_checks.check_prefect("")).level == "note"
    assert next(machine_checks.check_prefect(prefect_url)).level == "ok"
    assert next(machine_checks.check_prefect(prefect_url + "/")).level == "ok"
    for url in (prefect_url + "/v2", "http://127.0.0.1:9/api", "file:///etc"):
        finding = next(machine_checks.check_prefect(url))
        assert finding.level == "FAIL"
        assert "PREFECT_API_URL" in finding.text
