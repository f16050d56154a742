"""JPEGs decoded on a GPU by nvJPEG, cut and resized there; what it does not take is decoded on the CPU, and counted.

Pixels differ from `decode_exactly`, the slow reference: nvJPEG repeats halved colours where libjpeg-turbo interpolates
them, and rounds otherwise. tests/gpu/test_decode_on_gpu.py has the bounds.

Legend: `m` pictures of a micro-batch, `H`, `W` pixels of one, `S` side of what the tower sees.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from zerovl.data.batches.augmentation import Cut
from zerovl.data.batches.encoded_pictures import AT_ONCE, EncodedPicture, EncodedPictures, exact_pixels
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.memory import is_out_of_memory
from zerovl.text_format import plural

# nvJPEG says by a number alone what was wrong. A fault of the JPEG: bad (3), not supported by it (4) or by the GPU (9),
# or cut off (10); a kernel that failed (6) may have met a damaged scan, and where it is the GPU CUDA says so next. The
# others are faults of the machine: 5 is memory that it did not get.
_OF_THE_JPEG = re.compile(r"Failed to [\w ]+: (3|4|6|9|10)\b|Unknown chroma subsampling")
MANY_REFUSED, ENOUGH = 0.05, 1000  # share of pictures that is worth a warning, and of how many


class JpegBatchDecoder(Protocol):
    """Decodes whole JPEGs, many at once."""

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
        """Return RGB pixels (3, H, W) uint8 of files (bytes,) uint8; raises `RuntimeError` where it takes one not."""
        ...


class NvJpeg:
    """Decodes by torchvision's nvJPEG on a GPU; raises `ImportError` where torchvision is not installed."""

    def __init__(self, device: torch.device) -> None:
        from torchvision.io import ImageReadMode, decode_jpeg

        self._device = device
        self._decode = decode_jpeg
        self._mode = ImageReadMode.RGB

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
        """Return the pixels on the GPU."""
        # It writes on a stream of its own into memory of this one, and does not wait for what still reads there.
        torch.cuda.current_stream(self._device).synchronize()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # from 0.29 on, in favour of a library of its own
                found: list[Tensor] = self._decode(list(files), self._mode, self._device)
                return found
        except RuntimeError:
            torch.cuda.synchronize(self._device)  # it may still write into memory that is free again by now
            raise


def nvjpeg_problem(device: torch.device) -> str | None:
    """Return why a device decodes no JPEG, in a line; None where it does."""
    if device.type != "cuda":
        return "there is no GPU"
    probe = io.BytesIO()
    Image.new("RGB", (16, 16)).save(probe, "JPEG")
    try:
        NvJpeg(device)([torch.frombuffer(bytearray(probe.getvalue()), dtype=torch.uint8)])
    except AttributeError as error:  # of torch.ops.image
        return f"torchvision's extension for images is not loaded ({error})"
    except (ImportError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    return None


class BatchedDecoding:
    """Decodes pictures by a `JpegBatchDecoder`, and one that it refuses as `decode_exactly` does."""

    def __init__(self, jpegs: JpegBatchDecoder, at_once: int = AT_ONCE) -> None:
        self.decoded = 0  # pictures by the decoder; one that a step needs twice may count twice
        self.arrived = 0  # that the loader had decoded: no plain JPEGs, or too large ones
        self.refused = 0  # by the decoder
        self._warned = False
        self._jpegs = jpegs
        self._at_once = at_once

    def __call__(self, pictures: EncodedPictures, device: torch.device) -> Tensor:
        """Return pixels (m, 3, S, S) uint8 on the device; raises `ZeroVLError` for a picture that does not decode."""
        shown = torch.empty(pictures.shape, dtype=torch.uint8, device=device)
        for place, pixels in pictures.decoded().items():
            shown[place].copy_(pixels, non_blocking=True)
            self.arrived += 1
        for group in _groups(pictures.encoded(), self._at_once):
            found = self._whole(list(group.values()))
            for (place, picture), whole in zip(group.items(), found, strict=True):
                width, height = picture.size
                if whole is None or whole.shape != (3, height, width):
                    shown[place].copy_(exact_pixels(picture, pictures.side))
                    self.refused += 1
                else:
                    shown[place].copy_(cut_from(whole, picture.cut, pictures.side))
                    self.decoded += 1
        self._warn()
        return shown

    def told(self) -> str:
        """Say in a sentence what was decoded where."""
        return (
            f"{self.decoded:,} pictures were decoded on the GPU, {self.arrived + self.refused:,} on the CPU: "
            f"{plural(self.arrived, 'picture')} that are not plain JPEGs or too large, "
            f"{self.refused:,} that nvJPEG refused"
        )

    def _warn(self) -> None:
        """Say once that many are refused: the GPU then saves little, and nothing else shows it before the end."""
        given = self.decoded + self.refused
        if self._warned or given < ENOUGH or self.refused <= MANY_REFUSED * given:
            return
        self._warned = True
        logger().warning(
            f"machine.decode_on gpu: nvJPEG refused {self.refused:,} of the first {given:,} pictures, which are "
            "decoded one by one on the CPU; set machine.decode_on to cpu, where all loader processes decode"
        )

    def _whole(self, pictures: list[EncodedPicture]) -> list[Tensor | None]:
        """Pixels (3, H, W) each; None of one that is refused. The decoder gives nothing of a batch with such a one."""
        try:
            return list(self._jpegs([picture.file for picture in pictures]))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            if not _OF_THE_JPEG.search(str(error)):
                raise _failed(pictures, error) from error
        if len(pictures) == 1:
            return [None]
        middle = len(pictures) // 2
        return self._whole(pictures[:middle]) + self._whole(pictures[middle:])


def _failed(pictures: Sequence[EncodedPicture], error: RuntimeError) -> ZeroVLError:
    """The error of a decoder that failed for another reason than a JPEG."""
    others = f" and {plural(len(pictures) - 1, 'other')}" if len(pictures) > 1 else ""
    reason = str(error).partition("\n")[0]
    return ZeroVLError(
        f"{pictures[0].where}{others}: nvJPEG failed ({reason}; 5 means that the GPU has too little memory); lower "
        "train.micro_batch, or set machine.decode_on to cpu"
    )


def cut_from(pixels: Tensor, cut: Cut, side: int) -> Tensor:
    """Cut out of pixels (3, H, W) uint8 and resize, bilinear with antialiasing; (3, side, side) float.

    As bytes, which cut off what is behind the point, the values are those of `cut_out` to one level.
    """
    left, upper, right, lower = cut.box
    crop = pixels[None, :, upper:lower, left:right].float()  # no bytes: on a GPU torch resizes floats alone
    resized = interpolate(crop, (side, side), mode="bilinear", antialias=True)[0]
    return (resized.flip(-1) if cut.mirrored else resized) + 0.5


def _groups(pictures: Mapping[int, EncodedPicture], at_once: int) -> Iterator[dict[int, EncodedPicture]]:
    """Pictures one after the other in groups that take at most so many bytes, or of one that alone takes more.

    They take the bytes of all pictures and a cut of one in float32, which is four times the largest at most.
    """
    group: dict[int, EncodedPicture] = {}
    taken = largest = 0
    for place, picture in pictures.items():
        width, height = picture.size
        needed = 3 * width * height
        if group and taken + needed + 4 * max(largest, needed) > at_once:
            yield group
            group, taken, largest = {}, 0, 0
        group[place] = picture
        taken, largest = taken + needed, max(largest, needed)
    if group:
        yield group
