"""Tars from elsewhere, kept whole on a disk of the node by webdataset's cache of files.

There is no digest to compare a copy with: a tar that changes under its address is not noticed. Shards that `prepare`
has made have one, and a cache of their own (`zerovl.data.shard_cache`).
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zerovl import s3
from zerovl.data.streams.addresses import Stream, cannot_read, is_local, open_object, open_stream
from zerovl.errors import ZeroVLError
from zerovl.files import file_system_time
from zerovl.shared_folder import denied_explained, make_folder, open_file, sharing_fix

_ATTEMPTS = 5  # to open what is there, in a cache that is far too small for its users
_SECONDS_TO_GROW = 24 * 3600.0  # without a byte more, then whoever was fetching a tar is gone


@dataclass(frozen=True)
class KeptTars:
    """Opens tars through a folder that may hold `size` bytes; the oldest copies make room."""

    folder: Path
    size: int

    def __call__(self, address: str) -> Stream:
        """Open a tar, fetched first where it is not there yet; raises `ZeroVLError` where it does not come."""
        if is_local(address):
            return open_stream(address)
        import webdataset
        from webdataset.cache import FileCache

        webdataset.gopen_schemes[s3.PREFIX.partition(":")[0]] = open_object
        make_folder(self.folder, self.folder.parent)
        _remove_halves(self.folder)
        setting = f"machine.shard_cache.folder {self.folder.parent}"
        fix = f"{sharing_fix(self.folder.parent)}; or name a folder of your own"
        cache = FileCache(str(self.folder), url_to_name=_name, validator=None, cache_size=self.size)
        for _ in range(_ATTEMPTS):
            try:
                with denied_explained(self.folder, setting, fix):
                    descriptor = os.open(cache.get_file(address), os.O_RDONLY | os.O_CLOEXEC)
                open_file(descriptor, self.folder)
                return os.fdopen(descriptor, "rb")
            except FileNotFoundError:  # another process has made room
                continue
            except OSError as error:
                raise cannot_read(address, _status(error) or error) from None
            finally:
                with suppress(OSError):  # there is none where the tar came
                    (self.folder / f"{_name(address)}.temp{os.getpid()}").unlink()  # the half that came
        raise ZeroVLError(
            f"machine.shard_cache.size: {self.folder} cannot hold {address} long enough to be opened: raise it, or set "
            "machine.keep_streams to false"
        )


@cache
def _remove_halves(folder: Path) -> None:
    """Remove what killed processes were fetching; once a process."""
    for half in folder.glob("*.temp*"):
        with suppress(OSError):  # another process removes it too, or it is another user's
            if file_system_time(folder) - half.stat().st_mtime > _SECONDS_TO_GROW:
                half.unlink()


def _status(error: OSError) -> OSError | None:
    """Return what webdataset's `Pipe` says of a command that failed in fewer words than the whole command."""
    found = re.search(r": exit (\d+) \(", str(error))
    return OSError(f"its command ended with status {found[1]}") if found else None


def _name(address: str) -> str:
    return f"{hashlib.sha256(address.encode()).hexdigest()}.tar"
