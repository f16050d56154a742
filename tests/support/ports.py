"""Ports for the ranks of a test."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Below the ports that the kernel gives to others, so that it is still free when it is needed."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
