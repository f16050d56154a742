"""The image processor of a folder of CLIP or SigLIP, and the fields of our transform that do the same to pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, CLIPImageProcessorPil, SiglipImageProcessorPil

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.model.preprocess import INTERPOLATIONS

_OWN, _OF_ALL = "preprocessor_config.json", "processor_config.json"  # the second has a section of that name
_SECTION = "image_processor"
_NAMES = {resampling.value: name for name, resampling in INTERPOLATIONS.items()}  # by Pillow's numbers


def image_processor(folder: Path, family: str, image_size: int) -> Any:
    """Return the image processor of a folder; without a file for it the library's default, at the tower's size.

    Raises `ZeroVLError` where transformers makes none of the file.
    """
    file = file_of(folder)
    if file is None:
        square = {"height": image_size, "width": image_size}
        if family == "clip":
            return CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=square)
        return SiglipImageProcessorPil(size=square)
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ZeroVLError(
            f"{file}: transformers makes no image processor of it ({str(error).splitlines()[0]}); get the file again"
        ) from None


def file_of(folder: Path) -> Path | None:
    """Return the file that says what becomes of pictures; None where there is none."""
    if (folder / _OWN).is_file():
        return folder / _OWN
    whole = folder / _OF_ALL
    return whole if whole.is_file() and _SECTION in read_json(whole) else None


def fields(processor: Any, image_size: int, origin: str) -> dict[str, Any]:
    """Return the fields of our transform for a processor; raises `ZeroVLError` where no transform of ours does that."""
    values = processor.to_dict()
    size, crop = (dict(values.get(name) or {}) for name in ("size", "crop_size"))
    shortest, resample = set(size) == {"shortest_edge"}, values.get("resample")
    square = crop if values.get("do_center_crop") else {name: size.get(name) for name in ("height", "width")}
    if (
        not values.get("do_resize")
        or values.get("do_pad")
        or not (shortest or set(size) == {"height", "width"})
        or len(set(size.values())) != 1
        or square != {"height": image_size, "width": image_size}
        or resample not in _NAMES
    ):
        raise ZeroVLError(
            f"{origin}: its image processor (do_resize {values.get('do_resize')}, size {size}, resample {resample}, "
            f"do_center_crop {values.get('do_center_crop')}, crop_size {crop}, do_pad {values.get('do_pad')}) does not "
            f"make squares of {image_size} by a resize and a crop of the centre, which is what is read"
        )
    return {
        "resize_size": next(iter(size.values())),
        "resize_mode": "shortest" if shortest else "squash",
        "interpolation": _NAMES[resample],
        **_normalisation(values),
    }


def _normalisation(values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation of values from 0 to 1 for an image processor's factor, mean and deviation."""
    # theirs: (255 x * factor - mean) / std = (x - mean / (255 factor)) / (std / (255 factor))
    factor = 255.0 * float(values["rescale_factor"]) if values.get("do_rescale") else 255.0
    found = {}
    for name, without in (("mean", 0.0), ("std", 1.0)):
        given = values[f"image_{name}"] if values.get("do_normalize") else without
        channels = given if isinstance(given, list | tuple) else [given] * 3
        found[name] = tuple(channel / factor for channel in channels)
    return found
