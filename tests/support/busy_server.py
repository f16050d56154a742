"""Prefect's API on a server that is busy: it refuses the first requests as a locked SQLite does."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class BusyServer:
    """The first `refusals` requests are answered with `status`; with `lost`, the first write is done all the same.

    It takes artifacts, and whoever asks for a run hears that it is being cancelled.
    """

    def __init__(self, refusals: int, status: int = 500, lost: bool = False) -> None:
        self.refusals, self.refused = refusals, 0
        self.taken: list[dict[str, Any]] = []
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def write(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("/filter"):
                    self._answer(200, [_described(each) for each in busy.taken])
                    return
                if busy.refused < busy.refusals:
                    busy.refused += 1
                    if lost and busy.refused == 1:
                        busy.taken.append(content)
                    self._answer(status, {"exception_message": "database is locked"})
                    return
                busy.taken.append(content)
                self._answer(201, _described(content))

            do_POST = do_PATCH = write  # noqa: N815, names of http.server

            def do_GET(self) -> None:
                if busy.refused < busy.refusals:
                    busy.refused += 1
                    self._answer(status, {"exception_message": "database is locked"})
                    return
                state = {"id": str(uuid.uuid4()), "type": "CANCELLING", "name": "Cancelling"}
                self._answer(200, _described({"flow_id": str(uuid.uuid4()), "name": "otter", "state": state}))

            def _answer(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After", "0")  # Prefect's client pauses after its last attempt too
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _described(content: dict[str, Any]) -> dict[str, Any]:
    now = "2026-01-01T00:00:00Z"
    return {"id": str(uuid.UUID(int=1)), "created": now, "updated": now, **content}
