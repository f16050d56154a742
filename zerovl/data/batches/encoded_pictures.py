"""Pictures of a micro-batch that travel as JPEGs and are decoded where they are used.

Each has its file and the cut that was drawn for it, so it does not matter when and by what it is decoded. What was
decoded before travels as its pixels.

Legend: `m` pictures of a micro-batch, k of them decoded already, `S` side of what the tower sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from zerovl.data.batches.augmentation import Cut, cut_out
from zerovl.data.split_reader import no_longer_decodes
from zerovl.images import BrokenImageError
from zerovl.picture_reader import PictureReader, Size

AT_ONCE = 128 << 20  # bytes that decoding takes of a device at once: whole pictures, and a cut of one in float32
_AS_BYTES_AND_FLOATS = 5  # times the bytes of a picture of which all is shown
_LARGEST_REDUCTION = 64  # of a side: CUDA's resize with antialiasing refuses about 80, for want of shared memory
_DECODED = 9  # the last column of `EncodedPictures.rows`


@dataclass(frozen=True)
class EncodedPicture:
    """A JPEG, and what is to be shown of it."""

    file: Tensor  # (bytes,) uint8
    size: Size
    cut: Cut
    where: str  # it lies, for messages


def fits_a_device(size: Size, cut: Cut, side: int) -> bool:
    """Whether a device decodes a picture within `AT_ONCE`, and makes of its cut what has a `side`."""
    width, height = size
    left, upper, right, lower = cut.box
    within = 3 * width * height * _AS_BYTES_AND_FLOATS <= AT_ONCE
    return within and max(right - left, lower - upper) <= _LARGEST_REDUCTION * side


class PictureDecoder(Protocol):
    """Decodes the pictures of a micro-batch."""

    def __call__(self, pictures: EncodedPictures, device: torch.device) -> Tensor:
        """Return pixels (m, 3, S, S) uint8 on the device; raises `ZeroVLError` for a picture that does not decode."""
        ...


def decode_exactly(pictures: EncodedPictures, device: torch.device) -> Tensor:
    """Decode on the CPU, to the pixels that `TrainTransform` makes: the reference of every other decoder."""
    shown = torch.empty(pictures.shape, dtype=torch.uint8)
    for place, pixels in pictures.decoded().items():
        shown[place] = pixels
    for place, picture in pictures.encoded().items():
        shown[place] = exact_pixels(picture, pictures.side)
    return shown.to(device)


def exact_pixels(picture: EncodedPicture, side: int) -> Tensor:
    """Return pixels (3, side, side) uint8 of one picture; raises `ZeroVLError` where it does not decode."""
    try:
        pixels = PictureReader().open(picture.file.numpy().tobytes()).pixels()
    except BrokenImageError as error:
        raise no_longer_decodes(picture.where, error) from None
    return torch.from_numpy(cut_out(pixels, picture.size, picture.cut, side).copy()).permute(2, 0, 1)


@dataclass(frozen=True)
class EncodedPictures:
    """The pictures of a micro-batch in few tensors, which travel between processes in shared memory."""

    files: Tensor  # (bytes,) uint8: one behind the other
    rows: Tensor  # (m, 10) int64: first byte and end, width, height, box, mirrored, row in `pixels` or -1
    pixels: Tensor  # (k, 3, S, S) uint8: of what travels decoded
    where: tuple[str, ...]  # m
    decoder: PictureDecoder = decode_exactly

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def side(self) -> int:
        """S."""
        return self.pixels.shape[-1]

    @property
    def shape(self) -> torch.Size:
        """That of the pixels which they become: (m, 3, S, S)."""
        return torch.Size((len(self), *self.pixels.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels which they become."""
        return self.shape.numel()

    @property
    def packed_nbytes(self) -> int:
        """Bytes of what travels."""
        return self.files.nbytes + self.rows.nbytes + self.pixels.nbytes

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        """Return their pixels on a device, as a tensor's `to` does; raises `ZeroVLError` as the decoder does."""
        return self.decoder(self, device)

    def pin_memory(self) -> EncodedPictures:
        """Return them with those that are decoded in page-locked memory; JPEGs are read by the host."""
        return replace(self, pixels=self.pixels.pin_memory())

    def encoded(self) -> dict[int, EncodedPicture]:
        """Return the JPEGs by place."""
        return {
            place: EncodedPicture(
                self.files[first:end], (width, height), Cut((left, upper, right, lower), bool(mirrored)), where
            )
            for place, (
                (first, end, width, height, left, upper, right, lower, mirrored, decoded),
                where,
            ) in enumerate(zip(self.rows.tolist(), self.where, strict=True))
            if decoded < 0
        }

    def decoded(self) -> dict[int, Tensor]:
        """Return the pixels (3, S, S) of those that travel decoded by place."""
        return {place: self.pixels[row] for place, row in enumerate(self.rows[:, _DECODED].tolist()) if row >= 0}

    def __getitem__(self, places: Tensor) -> EncodedPictures:
        """Return those at some places (n,), with the pixels of these alone."""
        rows = self.rows[places]  # a copy
        decoded = rows[:, _DECODED] >= 0
        # Else each micro-batch of a batch would carry the pixels of all, and pin a copy of them.
        pixels = self.pixels[rows[decoded, _DECODED]]
        rows[decoded, _DECODED] = torch.arange(len(pixels))
        return replace(self, rows=rows, pixels=pixels, where=tuple(self.where[place] for place in places.tolist()))


def pack(encoded: Mapping[int, EncodedPicture], decoded: Mapping[int, Tensor], side: int) -> EncodedPictures:
    """Put JPEGs and pixels (3, side, side) together, both by their place."""
    rows, where, first = [], [], 0
    of_decoded = {place: row for row, place in enumerate(decoded)}
    for place in range(len(encoded) + len(decoded)):
        if place in of_decoded:
            rows.append([0] * _DECODED + [of_decoded[place]])
            where.append("")
            continue
        picture = encoded[place]
        end = first + len(picture.file)
        rows.append([first, end, *picture.size, *picture.cut.box, int(picture.cut.mirrored), -1])
        where.append(picture.where)
        first = end
    files = [encoded[place].file for place in sorted(encoded)]
    return EncodedPictures(
        torch.cat(files) if files else torch.empty(0, dtype=torch.uint8),
        torch.tensor(rows),
        torch.stack(list(decoded.values())) if decoded else torch.empty(0, 3, side, side, dtype=torch.uint8),
        tuple(where),
    )


def joined(parts: Sequence[Tensor | EncodedPictures]) -> Tensor | EncodedPictures:
    """Return the pictures of several micro-batches of a kind one after the other."""
    encoded = [part for part in parts if isinstance(part, EncodedPictures)]
    if not encoded:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    rows, files, pixels = [], 0, 0
    for part in encoded:
        moved = part.rows.clone()
        moved[:, :2] += files
        moved[moved[:, _DECODED] >= 0, _DECODED] += pixels
        rows.append(moved)
        files, pixels = files + len(part.files), pixels + len(part.pixels)
    return replace(
        encoded[0],
        files=torch.cat([part.files for part in encoded]),
        rows=torch.cat(rows),
        pixels=torch.cat([part.pixels for part in encoded]),
        where=tuple(where for part in encoded for where in part.where),
    )
