"""What a raw layout is: a way in which a source's pictures and captions lie in its folder.

`zerovl.data.raw.layouts` has all of them by name. A new one is a class like those, its line in that table, and its
name among the choices of `params.SourceParams.layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from zerovl import s3
from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.records import Reading
from zerovl.data.raw.s3_source import ListedTars

SPLITS = ("train", "valid")


class Layout(Protocol):
    """Finds the splits of a source that lies in one way, and reads their records.

    Attributes:
        name: as `params.yaml` has it.
        signs: the files that it is known by, for messages: "dataset*.json".
        remote: whether a source of it may lie on s3://.
        uses: which settings of a source it looks at, of those that not all layouts do.
    """

    name: str
    signs: str
    remote: bool
    uses: frozenset[str]

    def detect(self, folder: Path) -> bool:
        """Return whether a local folder has the files that this layout is known by."""
        ...

    def splits(self, source: Source) -> list[str]:
        """Return which of `SPLITS` a source has; its own `splits` are still all that are wanted."""
        ...

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Return the records of one split, each input that cannot be used as a record with its reason.

        Raises `ZeroVLError` where the split as a whole cannot be read. Files that are not on this machine go
        through `fetched`.
        """
        ...


@dataclass(frozen=True)
class Source:
    """A source whose layout is known; `splits` are those that it has and that are wanted."""

    name: str
    path: str  # folder, or s3://bucket/prefix
    layout: Layout
    splits: tuple[str, ...]
    evaluation_split: str  # as in `params.SourceParams`
    txt_captions: str = "auto"  # this and what follows as in `params.SourceParams`
    equal_pictures: str = "auto"
    tars: str = "packed"
    json_caption: str = ""
    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    pictures: str = ""
    sources_inside: tuple[str, ...] = ()  # paths of other sources that lie in its folder
    listed: ListedTars | None = None  # of one on S3: a prefix of many tars takes many requests, so once for all who ask

    @property
    def evaluated(self) -> str:
        """What the source's own files call the split that is evaluated on, `test` where it is not set."""
        return "test" if self.evaluation_split == "auto" else self.evaluation_split


def is_remote(path: str) -> bool:
    """Return whether a source's path names a place on S3."""
    return path.startswith(s3.PREFIX)
