"""Channels of a TIFF that lie one behind the other, each at its 16 bits.

Of such a file that is packed Pillow hands over the upper bytes; of one that is not, it takes every byte for a pixel,
or knows no way to read its alpha.
It reads grey of 16 bits whole, so each channel is read as a file of its own: the same bytes, another directory.
Source: TIFF 6.0, section 2 (the directory), 8 (PlanarConfiguration).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_BITS, _COLOURS, _CHANNELS, _PLANAR, _EXTRA = 258, 262, 277, 284, 338  # tags
_APART = 2  # of `_PLANAR`
_TIMES_ALPHA = (1,)  # of `_EXTRA`
_MOST = 65535
# Width, height, compression, order of bits, orientation, rows a strip, predictor, width and height of tiles.
_KEPT = (256, 257, 259, 266, 274, 278, 317, 322, 323)
_OF_A_PLANE = (273, 279, 324, 325)  # where its strips or tiles lie, and their bytes
_LONG = 4  # a type: whole numbers of 32 bits


def has_deep_planes(image: Image.Image) -> bool:
    """Return whether a picture, opened and not yet loaded, is a TIFF with channels of 16 bits one behind the other."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return tags.get(_PLANAR) == _APART and set(tags.get(_BITS, ())) == {16}


def deep_planes(data: bytes, bands: int) -> list[npt.NDArray[np.uint16]]:
    """Return the values (H, W) of the first channels of a file with `has_deep_planes`, turned as Pillow turns it.

    Raises what Pillow raises for damaged files, and `ValueError` where a channel has no bytes.
    """
    image: Any = Image.open(io.BytesIO(data), formats=("TIFF",))
    order = "<" if data.startswith(b"II") else ">"
    channels = int(image.tag_v2[_CHANNELS])
    files = (_of_one_plane(data, order, image.tag_v2, number, channels) for number in range(bands))
    planes = [np.asarray(Image.open(io.BytesIO(file), formats=("TIFF",))).astype(np.uint16) for file in files]
    if image.tag_v2.get(_EXTRA) == _TIMES_ALPHA:
        alpha = np.maximum(planes[-1], 1).astype(np.uint32)
        whole = [np.minimum(plane.astype(np.uint32) * _MOST // alpha, _MOST) for plane in planes[:-1]]
        planes = [*(plane.astype(np.uint16) for plane in whole), planes[-1]]
    return planes


def _of_one_plane(data: bytes, order: str, tags: Mapping[int, Any], number: int, channels: int) -> bytes:
    """Return a file of grey whose strips are those of one channel; offsets stay, as the directory comes last."""
    entries: dict[int, Sequence[int]] = {_BITS: (16,), _COLOURS: (1,), _CHANNELS: (1,)}
    entries |= {tag: (tags[tag],) for tag in _KEPT if tag in tags}
    for tag in _OF_A_PLANE:
        if values := tags.get(tag):
            count = len(values) // channels
            entries[tag] = values[number * count : (number + 1) * count]
            if not entries[tag]:
                raise ValueError(f"no bytes of channel {number + 1}")
    start = len(data) + len(data) % 2
    behind = start + 2 + 12 * len(entries) + 4  # lists of numbers that do not fit into their entry
    directory, lists = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        place = values[0] if len(values) == 1 else behind + len(lists)
        lists += b"" if len(values) == 1 else struct.pack(f"{order}{len(values)}I", *values)
        directory += struct.pack(f"{order}HHII", tag, _LONG, len(values), place)
    # Of a file with 64-bit offsets too: its own header is longer, and nothing else begins there.
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return header + data[len(header) :].ljust(start - len(header), b"\0") + directory + bytes(4) + lists
