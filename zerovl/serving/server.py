"""The port that an application is served on, and what serves it."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn

from zerovl.errors import ZeroVLError
from zerovl.serving.guard import App

_GRACE = 1  # seconds that answers on their way have at the end


def open_port(host: str, port: int) -> socket.socket:
    """Take a port, 0 for any that is free; raises `ZeroVLError` where that does not go."""
    taken: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen()  # with SO_REUSEADDR, others could bind the port until somebody listens
    except (OSError, OverflowError) as error:
        if taken is not None:
            taken.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ZeroVLError(f"{host}:{port}: {reason}; name another --port, or 0 for one that is free") from None
    return taken


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(taken: socket.socket) -> str:
    """Return what a browser opens."""
    host, port = taken.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(
        host, f"[{host}]" if ":" in host else host
    )
    return f"http://{shown}:{port}"


def make_server(app: App) -> uvicorn.Server:
    """Return what answers requests, with `run(sockets=[...])`, until a signal or its `should_exit`."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_GRACE))
