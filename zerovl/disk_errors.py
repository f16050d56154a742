"""What the command line says of a disk that refuses: it is full, closed to the user, or something is in the way."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from zerovl.shared_folder import mode_and_owner

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota is used up",
    errno.EFBIG: "it is larger than a file may be",
}
_CLOSED = (errno.EACCES, errno.EPERM)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
# NumPy writes arrays by a function of C, and of its failure keeps the two counts alone.
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")


def sentence(error: OSError, written: str) -> str:
    """Return what to print in place of a traceback; "" for an error that is not the disk's.

    Args:
        error: what ended a command.
        written: what the command was told to write to; "" where it was told nothing. It is named where the system
            names no file, as for a write to one that is open.
    """
    named = _text(error.filename2 or error.filename)  # of a rename: the name that was wanted
    if error.errno in _FULL or (error.errno is None and _CUT_SHORT.fullmatch(str(error))):
        why = _FULL[error.errno or errno.ENOSPC]
        where = named or written or "a file"
        return f"{where}: cannot be written, {why} ({error.strerror or error}); make room, then run it again"
    if not named:
        return ""
    if error.errno in _CLOSED:
        return f"{named}: {error.strerror}{_whose(Path(named))}; open it to this user, or name another place"
    if error.errno == errno.EROFS:
        return f"{named}: {error.strerror}; name another place"
    if error.errno in _IN_THE_WAY:
        return f"{named}: {error.strerror}; remove what is there, or name another place"
    return ""


def _text(filename: object) -> str:
    """Return the name of a file as the system was given it; a descriptor is not one."""
    return str(filename) if isinstance(filename, (str, Path)) else ""


def _whose(path: Path) -> str:
    """Return mode and owner of a file, or of the lowest folder above it that can be looked at."""
    for place in (path, *path.parents):
        try:
            return f" ({mode_and_owner(place)})"
        except OSError:
            continue
    return ""
