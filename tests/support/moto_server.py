"""moto's S3 server, answering one request after the other: `python moto_server.py PORT`.

moto looks whether an object is there and writes it in two steps, so two conditional writes at once may both succeed,
which S3 promises they do not: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from io import BytesIO
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneAtATime:
    """A WSGI application of which no two calls overlap."""

    def __init__(self, application: Any) -> None:
        self._application, self._lock = application, Lock()

    def __call__(self, environment: Any, start_response: Any) -> Iterable[bytes]:
        stream = environment["wsgi.input"]  # read first: a client that stalls must not hold the others up
        ends = environment.get("wsgi.input_terminated")
        body = stream.read() if ends else stream.read(int(environment.get("CONTENT_LENGTH") or 0))
        environment = {**environment, "wsgi.input": BytesIO(body), "wsgi.input_terminated": True}
        with self._lock:
            answer: Iterable[bytes] = self._application(environment, start_response)
            return answer


if __name__ == "__main__":
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)
