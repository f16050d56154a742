"""How far the readers of a run have come in their sources, as it lies beside a checkpoint: a file a rank.

With the same ranks and loader processes a run goes on in each chapter behind the sample that it gave last. With
others it begins at the first tar that one of the readers had not finished: no pair is missed, and those of the tars
behind it that other readers had read come again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerovl.data.streams.lost import Lost
from zerovl.data.streams.order import Place, Share
from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_json
from zerovl.log import logger

_NAME = "stream-{:05d}-of-{:05d}.json"


@dataclass(frozen=True)
class Layout:
    """What places are places of: the tars of each source, and how they are shared out and shuffled."""

    tars: dict[str, str]  # source -> digest of its list of tars
    ranks: int
    workers: int  # loader processes of a rank, at least 1
    chapter_tars: int
    shuffle_buffer: int

    @property
    def readers(self) -> int:
        """Readers of each source."""
        return self.ranks * self.workers


@dataclass(frozen=True)
class Begin:
    """Where each reader of each source begins."""

    layout: Layout
    first: dict[str, int] = field(default_factory=dict)  # source -> where the order began to be shared out so
    places: dict[str, dict[int, Place]] = field(default_factory=dict)  # source -> reader -> place
    before: Layout | None = None  # of the checkpoint that readers go on from

    @property
    def is_exact(self) -> bool:
        """Whether readers are those of the checkpoint, and each goes on behind the sample that it gave last."""
        return self.before is None or _same_order(self.before, self.layout)

    def of(self, source: str, reader: int) -> tuple[Share, Place]:
        """Return what a reader takes of a source, and how far it has come in that."""
        share = Share(self.first.get(source, 0), reader, self.layout.readers, self.layout.chapter_tars)
        return share, self.places.get(source, {}).get(reader, Place())


@dataclass
class Places:
    """How far the readers of one rank have come; grows with readers and sources alone."""

    begin: Begin
    rank: int
    lost: dict[str, Lost] = field(default_factory=dict)  # source -> what this rank has lost of it

    def __post_init__(self) -> None:
        self._now: dict[str, dict[int, Place]] = {}

    def note(self, worker: int, places: dict[str, Place], lost: dict[str, Lost]) -> None:
        """Take over what came with a micro-batch; says each reason for a loss once."""
        reader = self.rank * self.begin.layout.workers + worker
        for source, place in places.items():
            self._now.setdefault(source, {})[reader] = place
        for source, found in lost.items():
            known = self.lost.setdefault(source, Lost())
            for reason in known.add_all(found):
                logger().warning(f"{source}: {reason}: {known.examples[reason]} (said once; counted to the end)")

    def file(self) -> tuple[str, dict[str, Any]]:
        """Return name and content of the rank's file beside a checkpoint."""
        layout = self.begin.layout
        own = range(self.rank * layout.workers, (self.rank + 1) * layout.workers)
        sources = {}
        for source in layout.tars:
            places = {}
            for reader in own:
                place = self._now.get(source, {}).get(reader) or self.begin.of(source, reader)[1]
                places[str(reader)] = [place.chapter, place.given]
            lost = self.lost.get(source, Lost()).as_dict()
            sources[source] = {"first": self.begin.first.get(source, 0), "places": places, "lost": lost}
        return _NAME.format(self.rank + 1, layout.ranks), {"layout": vars(layout), "sources": sources}


def tars_digest(tars: list[str]) -> str:
    """Return a name for a list of tars; what is in them is not looked at."""
    return sha256_json(tars)


def begin_at(checkpoint: Path, layout: Layout) -> Begin:
    """Return where readers of `layout` go on; from the beginning for a source whose tars are others, or unknown.

    Raises `ZeroVLError` where the file of a rank, or of all of them, is missing.
    """
    first: dict[str, int] = {}
    places: dict[str, dict[int, Place]] = {}
    found = _files(checkpoint)
    if not found:
        raise ZeroVLError(
            f"{checkpoint}: has no {_NAME.format(1, layout.ranks)}, which says how far its streamed sources are read; "
            "delete this checkpoint, and the run goes on from the one before"
        )
    before = Layout(**found[0]["layout"])
    for source in layout.tars:
        if before.tars.get(source) != layout.tars[source]:
            continue
        began = int(found[0]["sources"][source]["first"])
        known = {
            int(reader): Place(*place)
            for values in found
            for reader, place in values["sources"][source]["places"].items()
        }
        if _same_order(before, layout):
            first[source], places[source] = began, known
        else:
            shares = {reader: Share(began, reader, before.readers, before.chapter_tars) for reader in known}
            first[source] = min(shares[reader].positions(place.chapter)[0] for reader, place in known.items())
    return Begin(layout, first, places, before)


def has_places(checkpoint: Path) -> bool:
    """Return whether a checkpoint is of a run that streamed."""
    return bool(_paths(checkpoint))


def lost_until(checkpoint: Path, rank: int, ranks: int) -> dict[str, Lost]:
    """Return what a rank had lost of each source when a checkpoint was written.

    Where it was written by another number of ranks, rank 0 takes over what all of them had.
    """
    found = _files(checkpoint)
    if len(found) == ranks:
        return _lost(found[rank : rank + 1])
    return {} if rank else _lost(found)


def lost_by_all(checkpoint: Path) -> dict[str, Lost]:
    """Return what all ranks together had lost of each source when a checkpoint was written."""
    return _lost(_files(checkpoint))


def _lost(found: list[dict[str, Any]]) -> dict[str, Lost]:
    whole: dict[str, Lost] = {}
    for values in found:
        for source, of in values["sources"].items():
            whole.setdefault(source, Lost()).add_all(Lost.from_dict(of["lost"]))
    return whole


def _same_order(before: Layout, now: Layout) -> bool:
    """Whether readers give the same samples in the same order; a source may have come or gone."""
    return all(
        getattr(before, name) == getattr(now, name) for name in ("ranks", "workers", "chapter_tars", "shuffle_buffer")
    )


def _paths(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob(_NAME.format(0, 0).replace("00000", "*")))


def _files(checkpoint: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [read_json(path) for path in _paths(checkpoint)]
    if found and len(found) != found[0]["layout"]["ranks"]:
        raise ZeroVLError(
            f"{checkpoint}: {len(found)} of {found[0]['layout']['ranks']} files of streamed sources are there; delete "
            "this checkpoint, and the run goes on from the one before"
        )
    return found
