"""A picture that Pillow has opened, as people see it: RGB of 8 bits, upright, in sRGB. Needs numpy and Pillow.

Exports carry this file along, so it imports nothing else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

# What a picture carries beside its values that changes how it is seen.
_TOLD = frozenset({"transparency", "exif", "icc_profile"})
_ORIENTATION = 0x0112  # the EXIF tag; source: Exif 2.32, 4.6.4 A
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WHOLE = (255, 1023, 4095, 16383, 65535)  # the largest values of 8 to 16 bits, as cameras and scanners have them
_FLOAT = (1.0, 255.0, 65535.0)
_SMALL = (
    1023  # whole numbers up to here, in 16 bits or 32, are counts as often as light: such a picture may be all dark
)
_CHANNELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile: mode that it is applied to
_UNSEEN = 2  # of 255: profiles that change no colour by more are sRGB under another name
_PROFILE_ERRORS = (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Look:
    """A picture as it is seen."""

    image: Image.Image  # RGB
    changes: list[str] = field(default_factory=list)  # what was done beside the conversion of its mode
    faults: list[str] = field(default_factory=list)  # what it says of itself that cannot be used, and was ignored


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as RGB, as it is seen; raises `ValueError` where it has no number in it."""
    return see(image).image


def see(image: Image.Image) -> Look:
    """Turn a picture of any mode into RGB without losing what the eye sees.

    Values of more than 8 bits are scaled by their range, transparency is laid on white, the colour profile is
    converted to sRGB, the EXIF orientation is obeyed. A plain RGB picture is given back as it is. Raises `ValueError`
    for a picture of floats none of which is finite.
    """
    image.load()  # a PNG may tell what it carries behind its pixels
    if image.mode == "RGB" and not _TOLD & image.info.keys():
        return Look(image)
    look = Look(image)
    seen = _upright(_in_srgb(_on_white(_eight_bits(image, look)), image, look), image, look)
    return Look(seen, look.changes, look.faults)


def _eight_bits(image: Image.Image, look: Look) -> Image.Image:
    """Grey of 16 bits, of 32 and of floats to L; to LA where one of its values is transparent."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)  # (H, W)
    if image.mode == "F" and not np.isfinite(values).all():
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError("no finite value in it")
        values = np.nan_to_num(values, nan=values[finite].min(), posinf=values[finite].max(), neginf=0)
    opaque = values != image.info.get("transparency", np.nan)
    seen = values[opaque] if opaque.any() else values
    low, high = usual_range(float(seen.min()), float(seen.max()), _FLOAT if image.mode == "F" else WHOLE)
    if (low, high) != (0, 65535):
        look.changes.append(f"values of {low:g} to {high:g} to 8 bits")
    scaled: npt.NDArray[np.float32] = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    grey = Image.fromarray(np.clip(scaled, 0, 255).round().astype(np.uint8))
    return (
        grey if opaque.all() else Image.merge("LA", (grey, Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8))))
    )


def usual_range(lowest: float, highest: float, usual: tuple[float, ...]) -> tuple[float, float]:
    """Return the values that are black and white: the smallest usual range, unless that would leave all of it dark.

    A scanner of 12 bits writes 0 to 4095 into 16; a picture of floats may have any range, and so may small counts.
    """
    low = min(lowest, 0.0)
    high = next((each for each in usual if highest <= each), highest)
    dark = high / 16 if usual is _FLOAT else high / 3 if high <= _SMALL else 0.0
    if 0 < highest < dark:
        high = highest
    return low, high if high > low else low + 1.0


def _on_white(image: Image.Image) -> Image.Image:
    """What is transparent laid on white; palettes to RGB."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _in_srgb(flat: Image.Image, image: Image.Image, look: Look) -> Image.Image:
    """RGB of a picture that is flat (RGB, L or CMYK), by the colour profile that the original one carries."""
    if "icc_profile" not in image.info:
        return _plain(flat)
    profile = _profile(image.info["icc_profile"] or b"")
    mode = _CHANNELS.get(profile.space)
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    fits = {"RGB": flat.mode != "CMYK", "L": grey, "CMYK": flat.mode == "CMYK"}
    if mode is None or not fits[mode]:
        look.faults.append(profile.fault or f"a colour profile for {profile.space} in a picture of mode {image.mode}")
        return _plain(flat)
    if profile.conversion is None:
        return _plain(flat)
    look.changes.append(f"colours from {profile.name} to sRGB")
    converted = ImageCms.applyTransform(flat.convert(mode), profile.conversion)
    assert converted is not None  # it is where the picture is not changed in place
    return converted


def _plain(flat: Image.Image) -> Image.Image:
    return flat if flat.mode == "RGB" else flat.convert("RGB")  # Pillow would copy


@dataclass(frozen=True, slots=True)
class _Profile:
    """A colour profile that was read."""

    space: str = ""  # "RGB", "GRAY", "CMYK"
    name: str = ""
    conversion: Any = None  # Pillow's transform to sRGB; None where nothing has to be done
    fault: str | None = None


@lru_cache(maxsize=64)
def _profile(data: bytes) -> _Profile:
    """Read a colour profile; a camera's pictures share one, so it is looked at once a process."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if space not in _CHANNELS:
            return _Profile(space, fault=f"a colour profile for {space}")
        name = " ".join(ImageCms.getProfileDescription(profile).split())[:80]
        conversion = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            _CHANNELS[space],
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return _Profile(
            space, name or "an unnamed profile", None if _changes_nothing(conversion, space) else conversion
        )
    except _PROFILE_ERRORS:
        return _Profile(fault="a broken colour profile")


def _changes_nothing(conversion: Any, space: str) -> bool:
    """Whether a conversion leaves colours as they are; names of profiles differ, so colours are tried."""
    if space == "CMYK":
        return False
    if space == "GRAY":
        colours = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)  # (256, 3)
    else:
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)  # (18 ** 3, 3)
    tried = Image.fromarray(colours[None]).convert(_CHANNELS[space])
    after = np.asarray(ImageCms.applyTransform(tried, conversion)).astype(int)  # (1, n, 3)
    return int(np.abs(after - colours).max()) <= _UNSEEN


def _upright(rgb: Image.Image, image: Image.Image, look: Look) -> Image.Image:
    """Turn as the EXIF orientation of the original picture says; a picture that is turned carries none any more."""
    orientation = exif_orientation(image)
    if orientation not in _TURNS:
        return rgb
    look.changes.append(f"turned upright (EXIF orientation {orientation})")
    turned = rgb.transpose(_TURNS[orientation])
    turned.info = {name: value for name, value in turned.info.items() if name not in _TOLD}
    return turned


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none, or it cannot be read."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parser of EXIF raises whatever hostile bytes lead it to
        return 1
    return orientation if isinstance(orientation, int) else 1
