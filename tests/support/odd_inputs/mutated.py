"""Bytes with random faults."""

from __future__ import annotations

import random


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three faults: flipped bits, a cut, zeros, something twice or out of nowhere."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(max(1, len(changed)))
        end = min(len(changed), start + draw.choice((1, 4, 100)))
        fault = draw.randrange(5)
        if fault == 0:
            changed[start:end] = bytes(byte ^ 1 << draw.randrange(8) for byte in changed[start:end])
        elif fault == 1:
            del changed[start:]
        elif fault == 2:
            changed[start:end] = bytes(end - start)
        elif fault == 3:
            changed[start:start] = changed[start:end]
        else:
            changed[start:start] = draw.randbytes(end - start)
    return bytes(changed)
