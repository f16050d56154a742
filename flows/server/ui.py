"""`make ui`: Prefect's server, a worker, the deployments and the reports, in one terminal; Ctrl-C ends them all."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import IO, Any

import httpx

from flows import SERVER_SETTINGS
from flows.runtime import pushing, switches
from flows.runtime.git import CheckoutError
from flows.runtime.guard import MARK_VARIABLE, marked, signal_all
from flows.runtime.paths import REPORTS_VARIABLE, Paths
from flows.runtime.process import GRACE_SECONDS, GRACE_VARIABLE
from flows.server import reports as kept_reports

HOST = "127.0.0.1"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_START_SECONDS = 600.0  # SQLite on a slow disk, or others on all cores, where it was seen to take over two minutes


class StoppedError(Exception):
    """Someone asked for the end: Ctrl-C or SIGTERM."""


def main() -> int:
    """Serve until the end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.server.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="of the UI on 127.0.0.1 (default: 4200)")
    parser.add_argument("--reports-port", type=int, help="of the reports (default: the next one)")
    arguments = parser.parse_args()
    for number in _ENDS:
        signal.signal(number, _stop)
    try:
        switches.check()  # before anything starts
        return serve(Paths.here(), arguments.port, arguments.reports_port or arguments.port + 1)
    except CheckoutError as error:
        sys.exit(str(error))
    except StoppedError:
        return 0


def serve(paths: Paths, port: int, reports_port: int) -> int:
    """Run until stopped or until one of the processes ends, which is an error; returns the exit status."""
    for wanted in (port, reports_port):
        _require_free(wanted)
    paths.state.mkdir(parents=True, exist_ok=True)
    environment, mark = _environment(paths, port, reports_port)
    reports = _serve_reports(paths.reports, reports_port)
    processes: list[tuple[str, subprocess.Popen[bytes]]] = []
    try:
        with open(paths.state / "server.log", "ab") as log:
            server = _start(["server", "start", "--host", HOST, "--port", str(port)], environment, log)
        processes.append(("server", server))
        print(f"starting Prefect's server (log: {paths.state / 'server.log'})", flush=True)
        _wait_until_healthy(f"http://{HOST}:{port}/api/health", server, paths.state / "server.log")
        subprocess.run([sys.executable, "-m", "flows.server.deploy"], cwd=paths.root, env=environment, check=True)
        _keep_up(environment)
        processes.append(
            ("worker", _start(["worker", "start", "--pool", "zerovl", "--name", "zerovl"], environment, None))
        )
        _greet(port, reports_port, environment, pushing.sentence(paths))
        while True:
            for name, process in processes:
                if process.poll() is not None:
                    print(f"the {name} ended with status {process.returncode}; ending the rest", file=sys.stderr)
                    return 1
            time.sleep(0.5)
    except subprocess.CalledProcessError:
        return 1
    finally:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)  # the end is not to be interrupted half-way
        with suppress(OSError):  # the terminal may be what is gone
            print("\nending: runs save their checkpoints first", flush=True)
        _end(processes, mark)
        reports.shutdown()


def _environment(paths: Paths, port: int, reports_port: int) -> tuple[dict[str, str], str]:
    mark = uuid.uuid4().hex
    values = {
        **os.environ,
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **{name: os.environ.get(name, value) for name, value in SERVER_SETTINGS.items()},
        "ZEROVL_ROOT": str(paths.root),
        REPORTS_VARIABLE: f"http://{HOST}:{reports_port}",
        MARK_VARIABLE: mark,
    }
    values.setdefault("PREFECT_HOME", str(paths.state / "prefect"))
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        values.setdefault("PREFECT_API_AUTH_STRING", password)
    return values, mark


def _start(words: list[str], environment: dict[str, str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C is for this process, which ends the others in order.
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=True,
    )


def _end(processes: list[tuple[str, subprocess.Popen[bytes]]], mark: str) -> None:
    """End the worker first, then what its runs still do, then the server, so that last states arrive."""
    grace = float(os.environ.get(GRACE_VARIABLE) or GRACE_SECONDS)
    servers = {process.pid for name, process in processes if name == "server"}
    for name, process in processes:
        if name != "server":
            process.terminate()
    deadline = time.monotonic() + grace + 20.0
    while left := [each for each in marked(mark) if each.pid not in servers and not _below(each, servers)]:
        if time.monotonic() > deadline:
            signal_all(left, signal.SIGKILL)
        time.sleep(0.2)
        for _, process in processes:
            process.poll()
    for _, process in processes:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15.0)
    signal_all(marked(mark), signal.SIGKILL)


def _below(process: Any, servers: set[int]) -> bool:
    """Return whether it is a helper of the server."""
    with suppress(Exception):
        return any(parent.pid in servers for parent in process.parents())
    return False


def _keep_up(environment: dict[str, str]) -> None:
    """End lost runs and skip late ones now, before a worker takes them, and from a thread from now on."""
    os.environ.update({name: value for name, value in environment.items() if name.startswith("PREFECT_")})
    from flows.server import upkeep  # Prefect reads its settings when it is imported

    try:
        for line in upkeep.look_once():
            print(line, flush=True)
    except httpx.HTTPError as error:
        print(f"upkeep: {error or type(error).__name__}; it looks again in {upkeep.EVERY:.0f} s", flush=True)
    threading.Thread(target=upkeep.go_on, args=(upkeep.EVERY,), name="upkeep", daemon=True).start()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            sys.exit(f"port {port} on {HOST}: {error.strerror}; is `make ui` running already? Else: make ui PORT=4300")


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"Prefect's server ended with status {server.returncode}:\n{_tail(log)}")
        with suppress(OSError), urllib.request.urlopen(url, timeout=5.0) as answer:
            if answer.status == 200:
                return
        time.sleep(0.3)
    sys.exit(f"Prefect's server did not answer at {url} within {_START_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _serve_reports(folder: Path, port: int) -> ThreadingHTTPServer:
    server = kept_reports.server(folder, HOST, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _greet(port: int, reports_port: int, environment: dict[str, str], branches: str) -> None:
    password = (
        " (user and password: PREFECT_SERVER_API_AUTH_STRING)" if "PREFECT_API_AUTH_STRING" in environment else ""
    )
    print(f"\n  the UI        http://{HOST}:{port}{password}")
    print(f"  the reports   http://{HOST}:{reports_port}")
    print(f"  for commands  export PREFECT_API_URL=http://{HOST}:{port}/api")
    print(f"  git           {branches}")
    print("  Ctrl-C ends server, worker and runs\n", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedError


if __name__ == "__main__":
    sys.exit(main())
