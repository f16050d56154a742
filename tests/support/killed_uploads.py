"""A training that dies by `kill -9` in the middle of its third copy of a checkpoint; a `prepare` of the fork server."""

import os
import signal
import time
from itertools import count

from zerovl.s3_files import Told
from zerovl.training.copied_checkpoints import CopiedCheckpoints, Snapshot
from zerovl.training.uploads import Uploads


def in_the_third() -> None:
    """Each checkpoint is copied before the next one is saved; of the third copy one file gets through."""
    upload, offer = CopiedCheckpoints.upload, Uploads.offer
    numbers = count(1)

    def die(size: int) -> None:
        if size:
            os.kill(os.getpid(), signal.SIGKILL)

    def upload_or_die(self: CopiedCheckpoints, files: Snapshot, told: Told) -> None:
        upload(self, files, die if next(numbers) == 3 else told)

    def offer_and_wait(self: Uploads, step: int) -> None:
        offer(self, step)
        while self._copied != step:
            time.sleep(0.01)

    CopiedCheckpoints.upload = upload_or_die  # type: ignore[method-assign]
    Uploads.offer = offer_and_wait  # type: ignore[method-assign]
