"""What every request passes: it must name this server and come from its own page; answers forbid others to use them.

A page elsewhere can point a name of its own at 127.0.0.1 and then read what is served there (DNS rebinding). So a
request must ask for `localhost`, for an address, or for a name that this server was given. And a page elsewhere can
send pictures and questions here, whose answers it cannot read: they are refused before anything is computed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN_POLICY = (
    b"default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
_HEADERS = {
    b"content-security-policy": _OWN_POLICY,
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class Guard:
    """Lets requests through that name this server, and adds headers to the answers."""

    def __init__(self, app: App, names: Iterable[str]) -> None:
        """Guard an application that is reached by `names`, beside addresses and localhost."""
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in _HEADERS.items() if name not in given),
                ]
            await send(message)

        refused = self._refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, text = refused
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _refusal(self, scope: Scope) -> tuple[int, bytes] | None:
        """Return status and text for a request that is not answered; None for one that is."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self.serves(headers.get(b"host", "")):
            return 421, b"This server is not known by that name; open it as http://127.0.0.1 with its port.\n"
        if is_of_another_page(headers):
            return 403, b"This request comes from a page of another site; use the page that this server has.\n"
        return None

    def serves(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_of_another_page(headers: Mapping[bytes, str]) -> bool:
    """Return whether a browser sends a request for a page of another site; following a link to here is none.

    No page can set these headers. A proxy may change Host and leave Origin, so what the browser says of both comes
    first; programs send neither.
    """
    if site := headers.get(b"sec-fetch-site"):
        is_link = headers.get(b"sec-fetch-mode") == "navigate" and b"origin" not in headers
        return site in ("cross-site", "same-site") and not is_link
    origin = headers.get(b"origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get(b"host", "").lower()
