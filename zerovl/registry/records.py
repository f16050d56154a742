"""The records that a registry keeps as JSON: versions, moves of an alias, and notes on a version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from zerovl.errors import ZeroVLError
from zerovl.registry.release_files import FileInfo, check_names

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """A release. It never changes; the same identity is never two versions of one name."""

    name: str
    number: int
    identity: str  # sha256 over the digests of the model's files and metrics
    created: str  # UTC, ISO 8601
    by: str
    files: dict[str, FileInfo]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    verdict: dict[str, Any] | None  # of the gate, at registration

    @property
    def reference(self) -> str:
        """The version as commands take it, `NAME@NUMBER`."""
        return f"{self.name}@{self.number}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(info.size for info in self.files.values())

    def to_bytes(self) -> bytes:
        """Return the record as it is stored: JSON with a stable layout."""
        return _to_bytes(asdict(self))


@dataclass(frozen=True)
class Move:
    """One entry in the history of an alias."""

    name: str
    alias: str
    number: int  # counts the moves from 1
    action: str  # promote | rollback
    version: int  # that the alias names from here on
    when: str  # UTC, ISO 8601
    by: str
    why: str
    verdict: dict[str, Any] | None
    check: str = ""  # what the check of the release found, before the move

    def to_bytes(self) -> bytes:
        """Return the record as it is stored: JSON with a stable layout."""
        return _to_bytes(asdict(self))


@dataclass(frozen=True)
class Replacement:
    """What stands in the place of a file that was withdrawn from a version."""

    withdrawn: str  # sha256 of the file that was there before
    withdrawn_size: int  # bytes
    sha256: str
    size: int  # bytes

    @property
    def file(self) -> FileInfo:
        """What the version has there now."""
        return FileInfo(self.sha256, self.size)


@dataclass(frozen=True)
class Note:
    """Something said of a version after it was published; what holds today is all of them together."""

    name: str
    version: int
    number: int  # counts the notes of a version from 1
    action: str  # describe | tag | untag | retire | restore | collect | withdraw
    when: str  # UTC, ISO 8601
    by: str
    text: str  # the description, the tag, or the reason
    replaced: dict[str, Replacement] = field(default_factory=dict)  # of withdraw: by the file's name in the release

    def to_bytes(self) -> bytes:
        """Return the record as it is stored: JSON with a stable layout."""
        return _to_bytes(asdict(self))


def version_from(data: bytes, origin: str) -> Version:
    """Read a version's record; raises `ZeroVLError` for anything that a publisher of ours does not write."""

    def build(values: dict[str, Any]) -> Version:
        version = Version(**{**values, "files": {name: FileInfo(**info) for name, info in values["files"].items()}})
        check_names(version.files, origin)
        if not all(_DIGEST.fullmatch(digest) for digest in (version.identity, *_digests(version))):
            raise ValueError("a digest is not 64 hexadecimal digits")
        return version

    return _read(data, origin, build)


def move_from(data: bytes, origin: str) -> Move:
    """Read a move's record; raises `ZeroVLError` for anything that is not one."""
    return _read(data, origin, lambda values: Move(**values))


def note_from(data: bytes, origin: str) -> Note:
    """Read a note's record; raises `ZeroVLError` for anything that is not one."""

    def build(values: dict[str, Any]) -> Note:
        replaced = {name: Replacement(**each) for name, each in values.get("replaced", {}).items()}
        note = Note(**{**values, "replaced": replaced})
        check_names(replaced, origin)
        if not all(_DIGEST.fullmatch(each.sha256) for each in replaced.values()):
            raise ValueError("a digest is not 64 hexadecimal digits")
        return note

    return _read(data, origin, build)


def check_name(name: str, what: str) -> str:
    """Return the name of a model or an alias; raises `ZeroVLError` where it has more than letters, digits, "_", "-"."""
    if not _NAME.fullmatch(name):
        raise ZeroVLError(f"{what} {name!r}: use letters, digits, '_' and '-' only")
    return name


def check_tag(tag: str) -> str:
    """Return a tag of a version; raises `ZeroVLError` where it has more than letters, digits, "_", "-" and "."."""
    if not _TAG.fullmatch(tag):
        raise ZeroVLError(
            f"tag {tag!r}: use letters, digits, '_', '-' and '.' only, and begin with none of the last two, as in v1.2"
        )
    return tag


def check_alias(alias: str) -> str:
    """Return an alias that may be given to a version; raises `ZeroVLError` for one that looks like a version."""
    if alias.isdecimal():
        raise ZeroVLError(f"alias {alias!r}: a number would look like a version; use a name such as 'production'")
    return check_name(alias, "alias")


def now() -> str:
    """Return the time as records have it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _digests(version: Version) -> list[str]:
    return [info.sha256 for info in version.files.values()]


def _to_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _read(data: bytes, origin: str, build: Callable[[dict[str, Any]], T]) -> T:
    try:
        return build(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZeroVLError(
            f"{origin}: this is not a record of this registry ({error}); it was changed by something else"
        ) from None
