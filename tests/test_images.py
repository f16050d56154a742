"""Pictures as people see them: upright, in sRGB, scaled to their range, and plain ones untouched."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.support.raw_sources import encoded, jpeg, picture
from zerovl.images import BrokenImageError, decode, decode_rgb
from zerovl.picture_looks import to_rgb


def values(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image).astype(int)


def profile(
    channels: str, space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ "
) -> bytes:
    """An ICC profile of version 2; source: ICC.1:2001-04, 6.1 and 6.2."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(channels) + 1) + channels.encode() + bytes(80), **tags}
    body, table = b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, kind, space, connection, b"acsp")
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50
    return (head.ljust(68, b"\0") + white).ljust(128, b"\0") + table + body


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def wide_gamut() -> bytes:
    """Primaries of Adobe RGB, adapted to D50, gamma 2.2."""
    columns = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    xyz = {
        name: b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in at)) for name, at in columns.items()
    }
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.19921875))
    return profile("wide", b"RGB ", {b"wtpt": white, **xyz, **curves})


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# L*, a*, b* of inks, alone and printed over one another; near those on coated paper, and known, which is what counts.
INKS = {
    "": (100, 0, 0),
    "c": (55, -37, -50),
    "m": (48, 74, -3),
    "y": (91, -5, 93),
    "cm": (24, 22, -46),
    "cy": (50, -68, 33),
    "my": (47, 68, 48),
    "cmy": (23, 0, 0),
}


def printed() -> bytes:
    """A press's profile: full inks have the colours of `INKS`, black covers all; ICC.1:2001-04, 6.5.7."""
    table = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):  # cyan varies slowest
        inks = "".join(name for name, full in zip("cmy", corner[:3], strict=True) if full)
        lightness, a, b = (8, 0, 0) if corner[3] else INKS[inks]
        table += bytes((round(lightness * 2.55), a + 128, b + 128))
    unit = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + unit + 4 * bytes(range(256)) + bytes(table) + 3 * bytes(range(256))
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    return profile("press", b"CMYK", {b"wtpt": white, b"A2B0": lut}, b"prtr", b"Lab ")


NEARLY_WHOLE = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    tag = Image.Exif()
    tag[0x0112] = orientation
    return encoded(picture(1), kind, exif=tag, **NEARLY_WHOLE.get(kind, {}))


@pytest.mark.parametrize("extra", [{}, {"icc_profile": srgb()}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_plain_jpeg_is_what_pillow_gives(extra: dict[str, Any]) -> None:
    data = encoded(picture(1), quality=90, **extra)
    opened = Image.open(io.BytesIO(data))
    assert to_rgb(opened) is opened  # not even copied
    decoded = decode(data)
    assert decoded.image.tobytes() == opened.tobytes()
    assert (decoded.kind, decoded.mode, decoded.changes, decoded.faults) == ("JPEG", "RGB", [], [])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(orientation: int, kind: str) -> None:
    upright = {  # source: Exif 2.32, 4.6.4 A: which side of the stored picture is the top
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }[orientation]
    seen = decode(turned(orientation, kind))
    expected = upright(values(decode_rgb(turned(1, kind))))
    assert np.array_equal(values(seen.image), expected)
    by_pillow = kind == "TIFF"  # which turns it as it reads it
    assert seen.changes == (
        [] if orientation == 1 or by_pillow else [f"turned upright (EXIF orientation {orientation})"]
    )
    assert np.array_equal(values(to_rgb(seen.image)), expected)  # not turned a second time


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert decode(encoded(picture(1), exif=exif)).changes == []


def test_wide_gamut_becomes_srgb() -> None:
    patch = Image.new("RGB", (8, 8), (100, 180, 90))
    data = encoded(patch, "PNG", icc_profile=wide_gamut())
    seen = decode(data)
    # By hand: linear = v ** 2.2 in Adobe RGB, to XYZ, to linear sRGB, to its curve.
    linear = (np.array([100, 180, 90]) / 255) ** 2.19921875
    to_srgb = np.array([[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]])
    wanted = np.clip(to_srgb @ linear, 0, 1)
    wanted = np.where(wanted <= 0.0031308, 12.92 * wanted, 1.055 * wanted ** (1 / 2.4) - 0.055) * 255
    assert np.abs(values(seen.image)[0, 0] - wanted).max() < 3
    assert abs(int(values(seen.image)[0, 0, 0]) - 100) > 20  # red is far from its value
    assert len(seen.changes) == 1
    assert "to sRGB" in seen.changes[0]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("inks", ["", "c", "m", "y", "cy", "my"])
def test_cmyk_has_the_colours_that_its_profile_says(inks: str, kind: str) -> None:
    patch = Image.new("CMYK", (16, 16), tuple(255 * (name in inks) for name in "cmyk"))
    options = {"quality": 100} if kind == "JPEG" else {}
    seen = decode(encoded(patch, kind, icc_profile=printed(), **options))
    # By hand: L*a*b* to XYZ, both of D50, to linear sRGB (Bradford), to its curve.
    lightness, a, b = INKS[inks]
    y = (lightness + 16) / 116
    root = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29)) * (0.96422, 1, 0.82521)
    to_srgb = np.array([[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07194, -0.22899, 1.40524]])
    linear = np.clip(to_srgb @ xyz, 0, 1)
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    found = values(seen.image)[8, 8]
    assert np.abs(found - wanted).max() < 6
    if inks:
        assert np.abs(found - values(patch.convert("RGB"))[8, 8]).max() > 20  # inks are not the screen's colours
    assert seen.faults == []
    assert "CMYK" in " ".join([seen.mode, *seen.changes])


def test_transparent_and_grey_pictures_with_profiles() -> None:
    clear = Image.new("RGBA", (8, 8), (100, 180, 90, 0))
    assert values(decode_rgb(encoded(clear, "PNG", icc_profile=wide_gamut()))).min() == 255
    dark = profile(
        "grey", b"GRAY", {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061), b"kTRC": gamma(1.0)}
    )
    seen = decode(encoded(Image.new("L", (8, 8), 55), icc_profile=dark))
    assert values(seen.image)[0, 0] == pytest.approx([128, 128, 128], abs=3)  # 0.216 linear is half way up sRGB's curve
    assert seen.mode == "L"


@pytest.mark.parametrize(
    ("image", "icc_profile", "fault"),
    [
        (picture(1), b"no profile", "a broken colour profile"),
        (picture(1), wide_gamut()[:200], "a broken colour profile"),
        (picture(1, mode="CMYK"), srgb(), "a colour profile for RGB in a picture of mode CMYK"),
    ],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_said(image: Image.Image, icc_profile: bytes, fault: str) -> None:
    seen = decode(encoded(image, icc_profile=icc_profile))
    assert (seen.faults, seen.changes) == ([fault], [])
    assert seen.image.tobytes() == decode_rgb(encoded(image)).tobytes()


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ("stored", "kind", "changes"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG", []),
        ((RAMP * 4095).astype(np.uint16), "PNG", ["values of 0 to 4095 to 8 bits"]),
        ((RAMP * 1023).astype(np.uint16), "TIFF", ["values of 0 to 1023 to 8 bits"]),
        (RAMP.astype(np.float32), "TIFF", ["values of 0 to 1 to 8 bits"]),
        ((RAMP * 2 - 1).astype(np.float32), "TIFF", ["values of -1 to 1 to 8 bits"]),
        ((RAMP * 1e-3).astype(np.float32), "TIFF", ["values of 0 to 0.001 to 8 bits"]),
        ((RAMP * 1e6).astype(np.int32), "TIFF", ["values of 0 to 1e+06 to 8 bits"]),
    ],
)
def test_values_are_scaled_by_their_range(stored: npt.NDArray[Any], kind: str, changes: list[str]) -> None:
    seen = decode(encoded(Image.fromarray(stored), kind))
    assert np.abs(values(seen.image)[..., 0] - RAMP * 255).max() <= 1
    assert seen.changes == changes


@pytest.mark.parametrize(
    ("most", "white"),
    [(1, 1), (5, 5), (40, 40), (84, 84), (85, 255), (255, 255), (300, 300), (341, 1023), (1024, 4095), (6000, 16383)],
)
@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF")])
def test_small_whole_numbers_are_not_dark_and_larger_ones_keep_the_range_of_their_bits(
    most: int, white: int, dtype: type[np.generic], kind: str
) -> None:
    stored = (RAMP * most).round()
    seen = decode(encoded(Image.fromarray(stored.astype(dtype)), kind))
    assert np.abs(values(seen.image)[..., 0] - stored * 255 / white).max() <= 0.51
    assert seen.changes == [f"values of 0 to {white:g} to 8 bits"]


def test_a_black_picture_of_16_bits_stays_black() -> None:
    assert values(decode_rgb(encoded(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"))).max() == 0


def test_floats_that_are_not_finite() -> None:
    holes = RAMP.astype(np.float32)
    holes[0, 3], holes[7, 0] = np.nan, np.inf
    seen = values(decode_rgb(encoded(Image.fromarray(holes), "TIFF")))
    assert (seen[0, 3, 0], seen[7, 0, 0]) == (0, 255)
    assert np.array_equal(seen[1:7, :, 0], np.round(RAMP[1:7] * 255))
    with pytest.raises(BrokenImageError, match="no finite value"):
        decode(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_that_is_not_empty(kind: str) -> None:
    empty = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    frames = [empty.copy(), picture(1).convert("RGBA"), picture(2).convert("RGBA")]
    seen = decode(encoded(empty, kind, save_all=True, append_images=frames, duration=100))
    assert np.abs(values(seen.image) - values(picture(1))).mean() < 25
    assert "those before are empty" in seen.changes[-1]
    still = [picture(2), picture(1)]
    data = encoded(still[0], kind, save_all=True, append_images=still[1:], duration=100)
    assert np.abs(values(decode_rgb(data)) - values(picture(2))).mean() < 25
    blank = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encoded(blank[0], kind, save_all=True, append_images=blank[1:], duration=100)
    assert np.abs(values(decode_rgb(data)) - (255, 0, 0)).max() < 10
    assert decode(data).changes == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n", "EPS is not read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC is not read; make it one of JPEG, PNG"),
        (b"\0\0\0\x18ftyphevc\0\0\0\0hevcheic" + bytes(100), "HEIC is not read"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc" + bytes(100), "HEIC is not read"),
        (encoded(picture(1), "PPM"), "not a picture"),
        (encoded(picture(1), "TGA"), "not a picture"),
    ],
)
def test_only_formats_of_the_list_are_tried(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        decode(data)


def test_the_content_says_the_format() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert decode(encoded(picture(1), kind)).kind == kind
    assert decode(jpeg(1)).image.size == (40, 30)
