"""Proxies before a real S3 server: one spoils the first requests, one refuses headers, one counts."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

UNAVAILABLE = "503"  # SlowDown, before anything was done
INTERNAL = "500"
NOT_IMPLEMENTED = "501"  # as a server answers to headers that it does not know
REFUSED = "403"  # as to a key that may not do it
DROP = "drop"  # the connection ends without an answer
HANG = "hang"  # no answer for longer than the client waits
LOST = "lost"  # done, but the answer is 500
CUT = "cut"  # half of the answer's body, then the connection ends
HANG_SECONDS = 3.0


class FlakyProxy:
    """Passes requests on to `url`; those of `method` meet `faults` first, in their order."""

    def __init__(self, url: str, method: str, faults: list[str]) -> None:
        self.faults = list(faults)
        self.passed = 0  # requests of the method that the server behind has answered
        self._lock = threading.Lock()
        self._method = method
        proxy, server = self, urlsplit(url).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._fault_of(self.command, self.path, self.headers)
                if fault in (UNAVAILABLE, INTERNAL, NOT_IMPLEMENTED, REFUSED):
                    self._answer(int(fault), [], f"<Error><Code>Fault{fault}</Code></Error>".encode())
                elif fault == DROP:
                    self._hang_up()
                elif fault == HANG:
                    time.sleep(HANG_SECONDS)
                    self._hang_up()
                else:
                    self._pass_on(body, fault)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815, names of http.server

            def _pass_on(self, body: bytes, fault: str) -> None:
                connection = http.client.HTTPConnection(server)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                if self.command == method:
                    proxy.passed += 1
                headers = [item for item in answer.getheaders() if item[0].lower() not in _OWN_HEADERS]
                if fault == LOST:
                    self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
                elif fault == CUT:
                    self._answer(answer.status, headers, data[: len(data) // 2], len(data))
                    self._hang_up()
                elif self.command == "HEAD":
                    self._answer(answer.status, headers, b"", int(answer.getheader("Content-Length") or 0))
                else:
                    self._answer(answer.status, headers, data)
                connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int = -1) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length < 0 else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault_of(self, method: str, path: str, headers: Message) -> str:
        """Return what happens to a request; "" where it is passed on."""
        if method != self._method:
            return ""
        with self._lock:
            return self.faults.pop(0) if self.faults else ""


class RefusesChecksums(FlakyProxy):
    """Answers 501 to each request with S3's newer headers of checksums, as servers do that are older than they."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "", [])
        self.refused = 0

    def _fault_of(self, method: str, path: str, headers: Message) -> str:
        names = " ".join(headers.keys()).lower()
        if not any(word in names for word in ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")):
            return ""
        with self._lock:
            self.refused += 1
        return NOT_IMPLEMENTED


class CountsRequests(FlakyProxy):
    """Counts requests by method; a listing, which is a GET of the bucket, as LIST."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "", [])
        self.counts = Counter[str]()

    def _fault_of(self, method: str, path: str, headers: Message) -> str:
        listing = method == "GET" and "list-type" in parse_qs(urlsplit(path).query)
        with self._lock:
            self.counts["LIST" if listing else method] += 1
        return ""

    def counted(self) -> dict[str, int]:
        """Return what was counted since the last time."""
        with self._lock:
            counts, self.counts = self.counts, Counter()
        return dict(counts)


_OWN_HEADERS = ("content-length", "transfer-encoding", "connection", "date", "server")
