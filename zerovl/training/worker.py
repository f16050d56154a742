"""The process of one rank: `torchrun ... -m zerovl.training.worker [params.yaml]`; what it does is in one_rank.py."""

from __future__ import annotations

import sys

from zerovl import heap, interpreter


def main() -> int:
    """Entry of every rank under torchrun; returns the exit status."""
    heap.prepare_training()
    return interpreter.of_its_own(_main)


def _main() -> int:
    from zerovl.training import one_rank  # with torch, timm and transformers

    return one_rank.main()


if __name__ == "__main__":
    sys.exit(main())
