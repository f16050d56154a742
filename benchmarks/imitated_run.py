"""A run of a flow whose stages sleep: tasks, lines, bars and pages as the factory's flows have them, without training.

python -m benchmarks.imitated_run COUNTS.json, started by benchmarks.runs_at_once
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import httpx

from flows import PREFECT_SETTINGS, outbox, stages  # before Prefect, which reads its settings when it is imported

assert PREFECT_SETTINGS

from prefect import flow, runtime  # noqa: E402

from flows.outbox import Page  # noqa: E402
from flows.progress import ProgressReporter  # noqa: E402
from flows.runtime.process import Bar  # noqa: E402

STAGES, LINES, SECONDS = 5, 20, 6.0  # of a run; lines and seconds of each stage
PAGE = "words of a page " * 2000  # 32 kB, as a gallery has


def line_of(stage: int, number: int) -> str:
    """Return a line of a stage's log, which no other line contains."""
    return f"stage {stage}: line {number:02d}"


def work(stage: int) -> None:
    """Write lines, move a bar and send a page, as a stage does."""
    with ProgressReporter(f"stage-{stage}") as reporter:
        for number in range(LINES):
            reporter.line(line_of(stage, number))
            reporter.bar(Bar("", 100.0 * number / LINES, f"{number}/{LINES}"))
            time.sleep(SECONDS / LINES)
        outbox.send(Page(f"page-{stage}", f"Page of stage {stage}", PAGE))


@flow(name="imitated")
def imitated(folder: str) -> str:
    """Work through the stages; what the server does not take lies in the folder."""
    with outbox.outbox(Path(folder)):
        for stage in range(STAGES):
            stages.stage_task(f"stage {stage}", "Sleeps")(work)(stage)
    return str(runtime.flow_run.id)


def count_answers() -> Counter[str]:
    """Count from now on what Prefect's clients are answered, attempt by attempt."""
    counts: Counter[str] = Counter()

    def note(answer: httpx.Response) -> httpx.Response:
        counts["requests"] += 1
        if answer.status_code >= 500 or answer.status_code in (408, 429):
            counts[f"status {answer.status_code}"] += 1
        return answer

    def counted(send: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(send)
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return note(send(*arguments, **named))
            except httpx.TransportError as error:
                counts.update(["requests", type(error).__name__])
                raise

        return call

    def counted_later(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(send)
        async def call(*arguments: Any, **named: Any) -> Any:
            try:
                return note(await send(*arguments, **named))
            except httpx.TransportError as error:
                counts.update(["requests", type(error).__name__])
                raise

        return call

    # Below the retries of Prefect's clients, which override `send` and call these.
    httpx.Client.send = counted(httpx.Client.send)  # type: ignore[method-assign]
    httpx.AsyncClient.send = counted_later(httpx.AsyncClient.send)  # type: ignore[method-assign]
    return counts


def main() -> int:
    """Run once and write the run's id and what was counted."""
    file = Path(sys.argv[1])
    counts = count_answers()
    run = imitated(str(file.with_suffix("")))
    unsent = len(list(file.with_suffix("").glob(f"{outbox.UNSENT}/*")))
    file.write_text(json.dumps({"run": run, "unsent": unsent, "answers": counts}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
