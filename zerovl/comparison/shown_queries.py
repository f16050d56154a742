"""Choose the queries that the page shows side by side, and fetch their pictures and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zerovl.comparison.disagreements import Disagreement, find
from zerovl.comparison.stored_pairs import open_pairs
from zerovl.comparison.subject import Subject, same_queries
from zerovl.evaluation.report.thumbnails import thumbnails
from zerovl.workspace import Workspace

COUNT = 6  # a direction and subject
SIDE = 168  # pixels of a picture


@dataclass(frozen=True)
class ShownQuery:
    """A query with what it is about."""

    query: Disagreement
    picture: str  # data URI
    captions: tuple[str, ...]  # the one that asks, or those that are right


@dataclass(frozen=True)
class ShownQueries:
    """What was chosen, of whom, and where pictures and captions come from."""

    places: tuple[int, ...]  # numbers of the subjects whose ranks the queries have, in their order
    where: str
    queries: tuple[ShownQuery, ...]


def choose(subjects: Sequence[Subject], here: Workspace) -> ShownQueries:
    """Return the queries that the first subject, and those scored on the same queries, disagree on most."""
    places = [0, *(n for n, other in enumerate(subjects[1:], 1) if not same_queries(subjects[0], other))]
    tables = [subjects[place].queries for place in places]
    if len(places) < 2:
        return ShownQueries((), "", ())
    samples = [subjects[place].sample for place in places]
    pairs = open_pairs(subjects[0].evaluation_digest, [path for path in samples if path], here)
    found = [query for way in ("t2i", "i2t") for query in find(tables, COUNT, pairs.has, way)]
    stored = [pairs.pair(query.source, query.image_id) for query in found]
    uris = thumbnails(range(len(stored)), lambda place: stored[place].image, SIDE)
    shown = [
        ShownQuery(query, uris[place], _asked(query, pair.captions))
        for place, (query, pair) in enumerate(zip(found, stored, strict=True))
    ]
    return ShownQueries(tuple(places), pairs.where, tuple(shown))


def _asked(query: Disagreement, captions: tuple[str, ...]) -> tuple[str, ...]:
    if query.caption is None:
        return tuple(dict.fromkeys(captions))
    return captions[query.caption : query.caption + 1]
