"""The client by which tests ask Prefect's server goes on where the server was killed in the meantime."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.prefect_api import PrefectApi


class Answers(BaseHTTPRequestHandler):
    """Refuses the first request, breaks the second off and answers the others; a connection may be used again."""

    protocol_version = "HTTP/1.1"
    connections = requests = 0

    def setup(self) -> None:
        Answers.connections += 1
        super().setup()

    def do_GET(self) -> None:
        Answers.requests += 1
        if Answers.requests == 2:
            self.close_connection = True
            return
        self.send_response(503 if Answers.requests == 1 else 200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b'{"name":1}')

    def log_message(self, *_: object) -> None: ...


def test_each_request_has_a_connection_of_its_own_and_is_sent_until_it_is_answered() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        asked = PrefectApi(f"http://127.0.0.1:{server.server_address[1]}")
        assert asked.api("GET", "/flows") == {"name": 1}
        assert asked.healthy()
        assert (Answers.requests, Answers.connections) == (4, 4)
    finally:
        server.shutdown()
        server.server_close()
    assert not asked.healthy()
