"""Fetched files on local disk, deleted as soon as the last sample in them is packed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class FetchedFiles:
    """Counts who still needs a fetched file; paths outside its folder are not its concern."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._uses: Counter[str] = Counter()

    @contextmanager
    def fetched(self, name: str, fetch: Callable[[Path], None]) -> Iterator[str]:
        """Fetch a file by `fetch(path)`; while the block runs it is in use."""
        os.makedirs(self._folder, exist_ok=True)
        path = os.path.join(self._folder, name)
        self.hold(path)
        try:
            fetch(Path(path))
            yield path
        finally:
            self.release(path)

    def hold(self, path: str) -> None:
        """Count one more use of a file."""
        if os.path.dirname(path) == self._folder:
            self._uses[path] += 1

    def release(self, path: str) -> None:
        """Count one use less, and delete the file after the last one."""
        if os.path.dirname(path) != self._folder:
            return
        self._uses[path] -= 1
        if not self._uses[path]:
            del self._uses[path]
            Path(path).unlink(missing_ok=True)
