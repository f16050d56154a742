"""A whole factory for tests: project, Prefect server and worker as processes of their own, asked over HTTP."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import certifi
import httpx
import psutil

from flows import PREFECT_SETTINGS, SERVER_SETTINGS
from flows.runtime.paths import Paths
from tests.support import forked_ranks
from tests.support.ports import free_port
from tests.support.prefect_api import PrefectApi, wait_for
from tests.support.project_copy import SMALL, commit, copy_project
from tests.support.s3 import moto_command
from tests.support.warm_commands import HAND_OVER, HAND_OVER_COMMANDS, HAND_OVER_DEPLOY, VARIABLE, Warm

# Laid over the trainer of the project's copy: from the step that a file names on, each takes a while. So a training
# has steps left for whoever interrupts it, however slow or fast the machine is.
SLOW_STEPS = """

def _slow(update):
    import os
    from contextlib import suppress
    from pathlib import Path

    def slowly(self, batch, *rest):
        file, began = Path(os.environ["ZEROVL_ROOT"], "slow-from-step"), time.monotonic()
        with suppress(FileNotFoundError):  # all are fast, or are so from now on
            while batch.step >= int(file.read_text()) and not self.stop.name and time.monotonic() < began + 30.0:
                time.sleep(0.05)
        return update(self, batch, *rest)

    return slowly


Trainer._update = _slow(Trainer._update)
"""
# By file of the project's copy: what stands after all that the file has, but for its call as a program.
_LAID_OVER = {
    "zerovl/engine/trainer.py": SLOW_STEPS,
    "zerovl/training/launch.py": forked_ranks.FORK_RANKS,
    "zerovl/distributed/helper_processes.py": forked_ranks.FORK_HELPERS,
    "zerovl/cli.py": HAND_OVER,
    "flows/runtime/process.py": HAND_OVER_COMMANDS,
    "flows/server/deploy.py": HAND_OVER_DEPLOY,
}
_AS_A_PROGRAM = '\n\nif __name__ == "__main__":\n'
# Prefect's own pauses, of which a run has a dozen.
_PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "3",  # a question costs the server 50 ms of a CPU
    "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}


class Factory(PrefectApi):
    """`overrides` make the demo small; `environment` is that of server, worker and all they start."""

    def __init__(self, folder: Path, overrides: tuple[str, ...] = SMALL) -> None:
        super().__init__(f"http://127.0.0.1:{free_port()}")
        self.folder = folder
        self.root = copy_project(folder / "project")
        self.paths = Paths(self.root, self.root / ".flows")
        self.s3_endpoint = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "processes.log"
        self.prefect_home = folder / "prefect"
        self.told = folder / "told"  # what people were told by the command of ZEROVL_NOTIFY
        self.environment = {
            **os.environ,
            **SERVER_SETTINGS,
            **_PREFECT,
            "PYTHONPATH": str(self.root),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_HOME": str(self.prefect_home),
            "ZEROVL_ROOT": str(self.root),
            "ZEROVL_REPORTS_URL": "http://reports.test",
            "ZEROVL_LEASE": str(folder / "lease"),
            "ZEROVL_CACHE": str(folder / "cache"),
            "ZEROVL_GRACE_SECONDS": "120",
            "ZEROVL_RETRY_SECONDS": "1 1 30",  # the last one: time to fix what made an attempt fail
            "ZEROVL_LOOK_SECONDS": "8",  # a cancelled run that takes longer than two looks to end is ended once more
            "ZEROVL_NOTIFY": f'(echo "$ZEROVL_SUBJECT"; cat) >> {self.told}',
            "AWS_ENDPOINT_URL": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SSL_CERT_FILE": str(_one_certificate(folder / "one.pem")),
        }
        self.warm: Warm | None = None
        for file, text in _LAID_OVER.items():
            _lay_over(self.root / file, text)
        with open(self.root / ".git" / "info" / "exclude", "a", encoding="utf-8") as exclude:
            exclude.write("/slow-from-step\n")
        self.command("-m", "zerovl.cli", "recipe", "demo", *overrides)
        commit(self.root, "small")
        self.server: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self.s3: subprocess.Popen[bytes] | None = None

    # -- processes

    def command(self, *words: str, **variables: str) -> str:
        """Run a Python command to its end, with more variables; returns what it printed."""
        if self.warm and words[0] == "-m" and words[1].partition(".")[0] in ("flows", "prefect", "zerovl"):
            words = ("-m", "tests.support.warm_commands", *words)
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.root,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_warm(self) -> None:
        """Start what stages and commands are handed over to from now on; none of `processes`: it outlives runs."""
        place = self.folder / "warm"
        env = {name: value for name, value in self.environment.items() if name != "ZEROVL_ROOT"}
        self.warm = Warm(place, {**PREFECT_SETTINGS, **env})
        self.environment[VARIABLE] = str(place)

    def start_server(self) -> None:
        port = self.url.rpartition(":")[2]
        self.server = self.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
        wait_for("a healthy server", self.healthy)

    def start_worker(self) -> None:
        """Prefect's own; beside warm libraries one whose runs import Prefect once (`run_in_place`)."""
        program = "tests.support.run_in_place" if self.warm else "prefect"
        self.worker = self.start(program, "worker", "start", "--pool", "zerovl", "--name", "test")

    def start_s3(self, bucket: str) -> None:
        """moto's server at the endpoint that everything was told at the start."""
        port = self.s3_endpoint.rpartition(":")[2]
        self.s3 = subprocess.Popen(
            moto_command(int(port)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def made() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.put(f"{self.s3_endpoint}/{bucket}", timeout=5).status_code == 200
            return False

        wait_for("a bucket", made)

    def refused_events(self) -> int:
        """How often the server's database refused an event; all who heard of it may then hear of it again."""
        return self.log.read_text(errors="replace").count("Failed in consume_loop")

    def stop(self) -> None:
        if self.s3:
            self.s3.kill()
            self.s3.wait()
        for process in (self.worker, self.server):
            if process and process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        if self.warm:
            self.warm.stop()
            self.warm = None
            del self.environment[VARIABLE]

    def processes(self, **variables: str) -> list[psutil.Process]:
        """What was started here, or what has these variables too, whatever its parent is by now; not the zombies."""
        wanted = {"ZEROVL_ROOT": str(self.root), **variables}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                environment = process.environ()
                ours = all(environment.get(name) == value for name, value in wanted.items())
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def of_run(self, run: str | None = None, *words: str) -> list[psutil.Process]:
        """Processes of a run, or of any run, with all `words` in their command line; not server and worker."""
        kept = {process.pid for process in (self.server, self.worker) if process}
        kept |= {child.pid for child in _children(self.server)}
        found = []
        for process in self.processes(**({"PREFECT__FLOW_RUN_ID": run} if run else {})):
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if process.pid not in kept and all(word in line for word in words):
                    found.append(process)
        return found

    def engine(self, run: str) -> psutil.Process:
        """The process of a worker's run in which the flow itself runs."""
        names = ("flow_engine", "prefect flow-run", "prefect.engine")
        return next(process for name in names for process in self.of_run(run, name))

    def ranks(self) -> list[psutil.Process]:
        """The ranks of a training of several, in a factory with warm libraries, where launchers fork them."""
        return [each for each in self.of_run(None, "bin/zerovl train") if each.name().startswith(forked_ranks.NAME)]

    def launchers(self, run: str) -> list[psutil.Process]:
        """What runs `zerovl train` for a run, but not its ranks."""
        found = self.of_run(run, "bin/zerovl train")
        return [each for each in found if not each.name().startswith(forked_ranks.NAME)]

    def gone(self, run: str | None = None) -> None:
        """No process of a run, or of any, is left, and then nobody has the CPU's turn."""
        wait_for("no process of a run", lambda: not self.of_run(run))
        if run is None:
            with open(Path(self.environment["ZEROVL_LEASE"], "cpu.lease"), "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # -- training

    def slow_from(self, step: int | None) -> None:
        """From this step on, each takes half a minute unless it is interrupted; None: all are as fast as they can."""
        file = self.root / "slow-from-step"
        if step is None:
            file.unlink(missing_ok=True)
        else:
            aside = file.with_suffix(".part")
            aside.write_text(str(step))
            aside.replace(file)

    def logs_of_training(self) -> dict[Path, int]:
        """Steps that each training in progress, or ended, has logged."""
        return {log: len(log.read_bytes().splitlines()) for log in self.paths.runs.glob("*/metrics.jsonl")}

    def steps(self) -> int:
        return max(self.logs_of_training().values(), default=0)

    def wait_for_steps(self, run: str, steps: int) -> None:
        self.wait_while(run, f"{steps} steps of training", lambda: self.steps() >= steps)

    def version(self, number: int) -> dict[str, Any]:
        path = self.root / "registry" / "zerovl" / "versions" / f"{number}.json"
        record: dict[str, Any] = json.loads(path.read_text())
        return record


def _one_certificate(file: Path) -> Path:
    """Each of Prefect's clients reads those that it trusts: of all, 30 ms of a CPU. Here none speaks TLS."""
    first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----")
    file.write_text(first + end + "\n", encoding="utf-8")
    return file


def _lay_over(file: Path, text: str) -> None:
    code, called, rest = file.read_text(encoding="utf-8").partition(_AS_A_PROGRAM)
    file.write_text(code + text + called + rest, encoding="utf-8")


def _children(process: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    if process:
        with suppress(psutil.Error):
            return psutil.Process(process.pid).children(recursive=True)
    return []


def kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    if isinstance(process, subprocess.Popen):
        process.wait()
