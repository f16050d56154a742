"""The calls of a model hub by which huggingface_hub makes a repository, commits to it and fetches, without Xet.

Regular files come with the commit, large ones by LFS before it: `preupload` says which are which.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of_a_test"
_LARGE = (".safetensors", ".onnx")


@dataclass
class Hub:
    """What the server was told."""

    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)  # that were to be validated
    large: dict[str, bytes] = field(default_factory=dict)  # by sha256
    files: dict[str, bytes] = field(default_factory=dict)  # of the last commit, by path
    message: str = ""
    refusal: int = 0  # a status that everything is answered with
    kept: dict[str, bytes] = field(default_factory=dict)  # what can be fetched of team/model, by path
    revision: str = "main"  # under which it is kept


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            if hub.refusal or self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(hub.refusal or 401, {"error": "you may not write here"})
            elif self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self._answer(200, {"url": f"{hub.url}/team/model"})
            elif self.path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                self._answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith(_LARGE) else "regular" for path in paths}
                files = [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]
                self._answer(200, {"files": files})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**each, "actions": {"upload": {"href": f"{hub.url}/large/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ]
                self._answer(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in self.path:
                self._commit([json.loads(line) for line in body.splitlines()])
            else:
                self._answer(404, {"error": self.path})

        def do_PUT(self) -> None:
            hub.large[self.path.rpartition("/")[2]] = self._body()
            self._answer(200, {})

        def do_GET(self) -> None:
            self._give(True)

        def do_HEAD(self) -> None:
            self._give(False)

        def _give(self, whole: bool) -> None:
            _, known, name = unquote(self.path).partition(f"/team/model/resolve/{hub.revision}/")
            data = hub.kept.get(name)
            self.send_response(404 if data is None else 200)
            if known:
                self.send_header("X-Repo-Commit", "c" * 40)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RevisionNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if whole and data:
                self.wfile.write(data)

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                its = line["value"]
                if line["key"] == "header":
                    hub.message = its["summary"]
                elif line["key"] == "file":
                    hub.files[its["path"]] = base64.b64decode(its["content"])
                else:
                    hub.files[its["path"]] = hub.large[its["oid"]]
            address = f"{hub.url}/team/model/commit/{'c' * 40}"
            self._answer(200, {"commitUrl": address, "commitOid": "c" * 40})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
