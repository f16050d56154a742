"""The two sides of a micro-batch: pixels and tokens, or what frozen towers made of them before.

A pair is read from its shard when a side first asks for it, and not at all where both sides are stored.

Legend: `m` pairs of a micro-batch, `L` tokens, `H`, `W` pixels, `w` width of a tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.captions import cut, mask_tokens
from zerovl.data.batches.encoded_pictures import EncodedPicture, EncodedPictures, fits_a_device, pack
from zerovl.data.batches.features import StoredFeatures
from zerovl.data.batches.randomness import RowRandom
from zerovl.data.shards import Sample
from zerovl.data.special_tokens import SpecialTokens
from zerovl.data.split_reader import SplitReader

Transform = Callable[[bytes, int], Tensor]  # a picture as stored and a seed -> uint8 (3, H, W)


class CaptionTokenizer(Protocol):
    """Turns captions into ids, padded on the right to the longest of the list; picklable."""

    @property
    def special(self) -> SpecialTokens:
        """The ids that masking must know."""
        ...

    @property
    def max_tokens(self) -> int:
        """Where captions are cut."""
        ...

    def __call__(self, captions: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Turn m captions into input_ids (m, L) and attention_mask (m, L), L at most `max_tokens`."""
        ...

    def whole(self, captions: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Do the same without a cut."""
        ...


class Pair:
    """A pair by its place, read when it is needed."""

    def __init__(self, reader: SplitReader, source: str, row: int) -> None:
        self.source = source
        self.row = row
        self._reader = reader

    @cached_property
    def sample(self) -> Sample:
        """The sample as stored; raises `ZeroVLError` where its shard is damaged."""
        return self._reader.sample(self.source, self.row)

    def pixels(self, transform: Callable[[bytes], Tensor]) -> Tensor:
        """Return what `transform` makes of the picture; raises `ZeroVLError` where it does not decode."""
        return self._reader.decoded(self.source, self.row, self.sample, transform)

    @property
    def where(self) -> str:
        """Where the picture lies, for messages."""
        return self._reader.where(self.source, self.row, self.sample)


@dataclass(frozen=True)
class DrawnPair:
    """A pair of a batch with the seeds of what is drawn for it."""

    pair: Pair
    image_seed: int
    caption_seed: int
    mask_seed: int

    def pixels(self, transform: Transform) -> Tensor:
        """Return the transformed picture."""
        return self.pair.pixels(lambda data: transform(data, self.image_seed))

    @property
    def caption(self) -> str:
        """The one of its captions that was drawn."""
        known = self.pair.sample.captions
        return known[self.caption_seed % len(known)]


class Keys(Protocol):
    """Gives the key of a pair, from which the draws for it come."""

    def __call__(self, pair: Pair) -> str:
        """Return the key of the pair's sample."""
        ...


class ImageSide(Protocol):
    """Makes what the image side of a micro-batch is."""

    def __call__(self, pairs: Sequence[DrawnPair]) -> Tensor | EncodedPictures:
        """Return pixels (m, 3, H, W) uint8, or features (m, w); or pictures that are decoded where they are used."""
        ...


class TextSide(Protocol):
    """Makes what the text side of a micro-batch is."""

    def __call__(self, pairs: Sequence[DrawnPair]) -> tuple[Tensor, Tensor]:
        """Return token ids and their mask, (m, L) each; or features (m, w) and an empty mask (m, 0)."""
        ...


def sample_key(pair: Pair) -> str:
    """Return the key that stands in the shard."""
    return pair.sample.key


@dataclass(frozen=True)
class StoredKeys:
    """Keys from beside stored features: no shard is read for them."""

    stored: StoredFeatures

    def __call__(self, pair: Pair) -> str:
        return self.stored.key(pair.source, pair.row)


@dataclass(frozen=True)
class Pictures:
    """Decoded and transformed pictures."""

    transform: Transform

    def __call__(self, pairs: Sequence[DrawnPair]) -> Tensor:
        return torch.stack([drawn.pixels(self.transform) for drawn in pairs])


@dataclass(frozen=True)
class PicturesAsStored:
    """JPEGs with the cut that is drawn for each, to be decoded elsewhere; what is none or too large is decoded here."""

    transform: TrainTransform

    def __call__(self, pairs: Sequence[DrawnPair]) -> EncodedPictures:
        encoded, decoded = {}, {}
        for place, drawn in enumerate(pairs):
            data = drawn.pair.sample.image
            found = self.transform.cut_of_jpeg(data, drawn.image_seed)
            if found and fits_a_device(*found, self.transform.image_size):
                file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                encoded[place] = EncodedPicture(file, *found, drawn.pair.where)
            else:
                decoded[place] = drawn.pixels(self.transform)
        return pack(encoded, decoded, self.transform.image_size)


@dataclass(frozen=True)
class StoredPictures:
    """What a frozen image tower made of the pictures."""

    stored: StoredFeatures

    def __call__(self, pairs: Sequence[DrawnPair]) -> Tensor:
        return _features(self.stored, [(drawn.pair, 0) for drawn in pairs])


@dataclass(frozen=True)
class Captions:
    """Tokens of one caption a pair, masked with a probability before they are cut."""

    tokenize: CaptionTokenizer
    mask_probability: float

    def __call__(self, pairs: Sequence[DrawnPair]) -> tuple[Tensor, Tensor]:
        captions = [drawn.caption for drawn in pairs]
        if not self.mask_probability:
            input_ids, attention_mask = self.tokenize(captions)
        else:
            special = self.tokenize.special
            draws = RowRandom(np.array([drawn.mask_seed for drawn in pairs], dtype=np.uint64))
            masked = mask_tokens(*self.tokenize.whole(captions), special, self.mask_probability, draws)
            input_ids, attention_mask = cut(*masked, special, self.tokenize.max_tokens)
        return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)


@dataclass(frozen=True)
class StoredCaptions:
    """What a frozen text tower made of the captions; the draw of one a pair is that of `Captions`."""

    stored: StoredFeatures

    def __call__(self, pairs: Sequence[DrawnPair]) -> tuple[Tensor, Tensor]:
        features = _features(self.stored, [(drawn.pair, drawn.caption_seed) for drawn in pairs])
        return features, torch.empty(len(pairs), 0, dtype=torch.int64)


def _features(stored: StoredFeatures, chosen: Sequence[tuple[Pair, int]]) -> Tensor:
    """Features (m, w) of pairs, by a draw of each among its own."""
    found = []
    for pair, seed in chosen:
        places = stored.rows_of(pair.source, pair.row)
        found.append(stored.feature(pair.source, places[seed % len(places)]))
    return torch.from_numpy(np.stack(found))
