"""A server of files that answers ranged GET as S3 does and counts the requests; a process of its own.

python -m benchmarks.range_server FOLDER [BYTES]    # prints its port; /requests says how many came

It gives at most so many bytes a second to all who ask together, as a line does; 0, the default, is no limit.
"""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.common import HERE

_WAIT_SECONDS = 30
_PIECE = 64 << 10


class Line:
    """So many bytes a second, whoever asks."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # when it has given all that was asked for

    def wait(self, size: int) -> None:
        """Return when the line has room for so many bytes more."""
        with self._lock:
            self._free = max(time.monotonic(), self._free) + size / self._rate
            free = self._free
        time.sleep(max(0.0, free - time.monotonic()))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET /bucket/KEY with the asked range of FOLDER/KEY."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body go out together: apart, each small answer waits 40 ms for an acknowledgement
    disable_nagle_algorithm = True
    folder = Path()
    numbers = count()
    line: Line | None = None

    def do_GET(self) -> None:
        if self.path == "/requests":
            self._answer(200, str(next(self.numbers)).encode())
            type(self).numbers = count()
            return
        next(self.numbers)
        path = self.folder / self.path.split("?")[0].split("/", 2)[2]
        start, end = 0, path.stat().st_size
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(end, int(asked[2]) + 1) if asked[2] else end
        with open(path, "rb") as file:
            self._answer(206 if asked else 200, os.pread(file.fileno(), end - start, start))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            if self.line:
                self.line.wait(len(piece))
            self.wfile.write(piece)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, rate: float = 0.0) -> Iterator[str]:
    """Serve the files of a folder until the block ends, so many bytes a second, 0: no limit; gives the address."""
    command = [sys.executable, "-m", "benchmarks.range_server", str(folder), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def requests(address: str) -> int:
    """Return how many requests came since this was last asked."""
    with urllib.request.urlopen(f"{address}/requests", timeout=_WAIT_SECONDS) as answer:
        return int(answer.read())


def main() -> None:
    """Serve until killed."""
    Handler.folder = Path(sys.argv[1])
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    Handler.line = Line(rate) if rate else None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
