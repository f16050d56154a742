"""Choose the queries that the report shows, with what the model found for them.

Three groups a direction: drawn at random (how it is on the whole), the best, and the worst cases.

Shapes: `I` pictures and `M` captions that were searched, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zerovl.evaluation.pool import Embeddings, Ints, Pool
from zerovl.evaluation.ranking import Ranking
from zerovl.evaluation.report.thumbnails import Fetch, thumbnails
from zerovl.evaluation.retrieval import take_rows, top_items
from zerovl.evaluation.scores import Scores

TOP = 5
CANDIDATES = 200  # items looked at to find TOP distinct captions
SIDES = (224, 160, 112, 72)  # pixels; the first at which a page keeps its budget
_SCORED_AT_ONCE = 65_536  # pairs: their products are as large as their embeddings

Group = Literal["drawn", "best", "worst"]


@dataclass(frozen=True)
class FoundPicture:
    """A picture that was found for a caption."""

    image: int  # row in the pool
    right: bool
    score: float  # cosine


@dataclass(frozen=True)
class FoundCaption:
    """A text that was found for a picture."""

    text: str
    right: bool
    score: float
    copies: int  # captions of the pool with this very text


@dataclass(frozen=True)
class TextQuery:
    """A caption as a query, and the pictures that came first."""

    group: Group
    caption: str
    source: str
    image: int  # the right picture, row in the pool
    place: float  # expected place of the first right item, from 1
    found: tuple[FoundPicture, ...]


@dataclass(frozen=True)
class ImageQuery:
    """A picture as a query, and the texts that came first."""

    group: Group
    image: int  # row in the pool
    source: str
    captions: tuple[str, ...]  # its own
    place: float  # expected place of the first right item, from 1
    found: tuple[FoundCaption, ...]


@dataclass(frozen=True)
class Gallery:
    """The chosen queries of both directions."""

    text_queries: tuple[TextQuery, ...]
    image_queries: tuple[ImageQuery, ...]

    def images(self) -> list[int]:
        """Return the rows of all pictures to be shown, each once, in order of first appearance."""
        shown = [query.image for query in self.image_queries]
        for query in self.text_queries:
            shown += [query.image, *(found.image for found in query.found)]
        return list(dict.fromkeys(shown))

    def shortened(self) -> Gallery:
        """Return the gallery without the last query of each direction."""
        return Gallery(self.text_queries[:-1], self.image_queries[:-1])


def choose(pool: Pool, embeddings: Embeddings, scores: Scores, count: int, seed: int) -> Gallery:
    """Choose `count` queries a direction out of `scores`, half of them drawn, a quarter best, a quarter worst."""
    result = scores.result
    pictures = scores.images[result.image_rows]  # (I,) rows in the pool
    owners = pictures[result.caption_image]  # (M,) right picture of each caption
    images, texts = take_rows(embeddings.image, pictures), take_rows(embeddings.text, scores.captions)
    own_score = _own_scores(images, texts, result.caption_image)  # (M,)

    text_queries = []
    keys = [pool.captions[row] for row in scores.captions]  # one text is shown once
    for group, query in _pick(result.t2i, own_score, pool.image_source[owners], keys, count, seed):
        rows, values = top_items(texts[query], images, TOP)
        right = result.caption_image[query]
        found = tuple(
            FoundPicture(int(pictures[row]), bool(row == right), float(value))
            for row, value in zip(rows, values, strict=True)
        )
        owner = int(owners[query])
        text_queries.append(
            TextQuery(group, keys[query], _source(pool, owner), owner, float(result.t2i.expected_place[query]), found)
        )

    best_own = np.full(len(pictures), -np.inf)  # (I,)
    np.maximum.at(best_own, result.caption_image, own_score)
    image_queries = []
    for group, query in _pick(result.i2t, best_own, pool.image_source[pictures], range(len(pictures)), count, seed + 1):
        picture = int(pictures[query])
        own = scores.captions[result.caption_image == query]
        found_captions = _top_captions(pool, images[query], texts, scores.captions, {int(row) for row in own})
        image_queries.append(
            ImageQuery(
                group,
                picture,
                _source(pool, picture),
                tuple(dict.fromkeys(pool.captions[row] for row in own)),
                float(result.i2t.expected_place[query]),
                found_captions,
            )
        )
    return Gallery(tuple(text_queries), tuple(image_queries))


def _own_scores(images: Tensor, texts: Tensor, caption_image: Ints) -> npt.NDArray[np.float32]:
    """Return the score of each caption (M, D) with its own picture of (I, D): (M,)."""
    owners = torch.from_numpy(caption_image)
    parts = zip(texts.split(_SCORED_AT_ONCE), owners.split(_SCORED_AT_ONCE), strict=True)
    scores: npt.NDArray[np.float32] = torch.cat([(part * images[rows]).sum(1) for part, rows in parts]).numpy()
    return scores


def _top_captions(
    pool: Pool, picture: Tensor, texts: Tensor, captions: Ints, own: set[int]
) -> tuple[FoundCaption, ...]:
    """Return the TOP best of texts (M, D) for a picture (D,); equal texts, which tie, are shown as one.

    `captions` (M,) says which rows of the pool the texts are, `own` which of them are the picture's.
    """
    rows, values = top_items(picture, texts, CANDIDATES)
    best: dict[str, FoundCaption] = {}
    for row, value in zip(captions[rows], values, strict=True):
        text = pool.captions[row]
        before = best.get(text)
        best[text] = FoundCaption(
            text,
            right=int(row) in own or (before is not None and before.right),
            score=before.score if before else float(value),
            copies=before.copies + 1 if before else 1,
        )
    return tuple(list(best.values())[:TOP])


def _pick(
    ranking: Ranking,
    own_score: npt.NDArray[np.floating],
    sources: npt.NDArray[np.int64],
    keys: Iterable[object],
    count: int,
    seed: int,
) -> Iterator[tuple[Group, int]]:
    """Pick queries by group, none twice; the best ones come from all sources in turn."""
    place = ranking.expected_place
    key_of = list(keys)
    edge = count // 4
    sizes: dict[Group, int] = {"drawn": count - 2 * edge, "best": edge, "worst": edge}
    best_first = np.lexsort((-own_score, place))
    orders: dict[Group, npt.NDArray[np.intp]] = {
        "drawn": np.random.default_rng(seed).permutation(len(place)),
        "best": best_first[np.argsort(_turns(sources[best_first]), kind="stable")],
        "worst": np.lexsort((own_score, -place)),
    }
    seen: set[object] = set()
    for group, order in orders.items():
        left = sizes[group]
        for query in order:
            if not left:
                break
            if key_of[query] not in seen:
                seen.add(key_of[query])
                left -= 1
                yield group, int(query)


def _turns(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count how often each value occurred before: [a, a, b, a] -> [0, 1, 0, 2]."""
    turns = np.zeros(len(values), np.int64)
    for value in np.unique(values):
        mask = values == value
        turns[mask] = np.arange(mask.sum())
    return turns


def _source(pool: Pool, image: int) -> str:
    return pool.sources[int(pool.image_source[image])]


def fit(gallery: Gallery, fetch: Fetch, budget: int) -> tuple[Gallery, dict[int, str]]:
    """Make data URIs of all pictures in at most `budget` characters: smaller pictures first, then fewer queries."""
    while True:
        for side in SIDES:
            uris = thumbnails(gallery.images(), fetch, side)
            if sum(map(len, uris.values())) <= budget or not uris:
                return gallery, uris
        gallery = gallery.shortened()
