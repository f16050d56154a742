"""Pixels are those of `decode_rgb`, whatever decodes them and whatever the picture says of itself."""

import io
import pickle
import random

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.odd_inputs.mutated import mutated
from zerovl import picture_reader
from zerovl.images import BrokenImageError, decode_rgb
from zerovl.picture_reader import JpegDecoder, PictureReader, PillowDecoder, Pixels, TurboDecoder

DECODERS = [
    pytest.param(PillowDecoder, id="pillow"),
    pytest.param(
        TurboDecoder,
        id="turbo",
        marks=pytest.mark.skipif(picture_reader.simplejpeg is None, reason="simplejpeg is not installed"),
    ),
]


class NoDecoder:
    """Stands where a picture must not go through the fast way."""

    def __init__(self, inner: JpegDecoder) -> None:
        self.size = inner.size

    def decode(self, data: bytes, size: tuple[int, int], reduction: int) -> None:
        raise AssertionError("decoded without its look")


@pytest.fixture(params=DECODERS)
def jpegs(request: pytest.FixtureRequest) -> JpegDecoder:
    made: JpegDecoder = request.param()
    return made


def photograph(width: int = 75, height: int = 50, mode: str = "RGB") -> Image.Image:
    grid = np.random.default_rng(3).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def profile(name: str) -> bytes:
    if name == "srgb":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def exif(value: int | str, tag: int = 0x0112) -> bytes:
    told = Image.Exif()
    told[tag] = value
    return told.tobytes()


def sized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    start = data.index(b"\xff\xc0")  # the frame header; source: ITU-T T.81, B.2.2
    return data[: start + 5] + height.to_bytes(2) + width.to_bytes(2) + data[start + 9 :]


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


PLAIN = {
    "4:2:0": encoded(photograph(), quality=80, subsampling=2),
    "4:2:2": encoded(photograph(), quality=80, subsampling=1),
    "4:4:4": encoded(photograph(), quality=95, subsampling=0),
    "progressive": encoded(photograph(), progressive=True),
    "coded as RGB": encoded(photograph(), keep_rgb=True),
    "odd": encoded(photograph(9, 31)),
    "with a comment": encoded(photograph(), comment=b"Exif\0 ICC_PROFILE\0"),
    "upright by its EXIF": encoded(photograph(), exif=exif(1)),
    "sRGB by its profile": encoded(photograph(), icc_profile=profile("srgb")),
    "a profile of no colours": encoded(photograph(), icc_profile=profile("lab")),
}
OTHERS = {
    "turned": encoded(photograph(), exif=exif(6)),
    "turned by its XMP": encoded(photograph(), exif=exif("a camera", tag=0x010F), xmp=XMP),
    "grey": encoded(photograph(mode="L")),
    "CMYK": encoded(photograph(mode="CMYK")),
    "PNG": encoded(photograph(), "PNG"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpegs_are_decoded_as_ever(jpegs: JpegDecoder, name: str) -> None:
    expected = np.asarray(decode_rgb(PLAIN[name]))
    picture = PictureReader(jpegs).open(PLAIN[name])
    assert picture.size == (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(picture.pixels(), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_plain_jpeg_goes_the_usual_way(jpegs: JpegDecoder, name: str) -> None:
    expected = np.asarray(decode_rgb(OTHERS[name]))
    picture = PictureReader(NoDecoder(jpegs)).open(OTHERS[name])
    assert picture.size == (expected.shape[1], expected.shape[0])
    for reduction in (1, 2):
        np.testing.assert_array_equal(picture.pixels(reduction), expected)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_pixels_are_those_of_the_picture_made_smaller(jpegs: JpegDecoder, reduction: int) -> None:
    for name in ("4:2:0", "4:4:4", "progressive"):
        whole = decode_rgb(PLAIN[name])
        found = PictureReader(jpegs).open(PLAIN[name]).pixels(reduction)
        size = tuple(-(-side // reduction) for side in whole.size)
        assert found.shape == (size[1], size[0], 3)
        expected = np.asarray(whole.reduce(reduction)).astype(int)
        assert np.abs(found - expected)[:-1, :-1].mean() < 4  # the last ones stand for fewer pixels


@pytest.mark.skipif(picture_reader.simplejpeg is None, reason="simplejpeg is not installed")
@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("name", PLAIN)
def test_both_decoders_reduce_alike(name: str, reduction: int) -> None:
    turbo, pillow = (
        PictureReader(decoder).open(PLAIN[name]).pixels(reduction) for decoder in (TurboDecoder(), PillowDecoder())
    )
    np.testing.assert_array_equal(turbo, pillow)


def test_memory_is_used_again_and_not_sent_along(jpegs: JpegDecoder) -> None:
    reader = PictureReader(jpegs)
    large, small = encoded(photograph(200, 150)), PLAIN["4:2:0"]
    for data in (small, large, small):
        np.testing.assert_array_equal(reader.open(data).pixels(), np.asarray(decode_rgb(data)))
    assert len(pickle.dumps(reader)) < 1000
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.open(small).pixels(), np.asarray(decode_rgb(small)))


def test_damaged_bytes_have_their_usual_reason(jpegs: JpegDecoder) -> None:
    for data in (b"", b"text", PLAIN["4:4:4"][:200], PLAIN["4:4:4"][:-400]):
        with pytest.raises(BrokenImageError) as expected:
            decode_rgb(data)
        with pytest.raises(BrokenImageError) as found:
            PictureReader(jpegs).open(data).pixels()
        assert str(found.value) == str(expected.value)


def test_a_header_of_too_many_pixels_is_refused_before_they_have_memory(
    jpegs: JpegDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokenImageError, match="decompression bomb"):
        PictureReader(NoDecoder(jpegs)).open(sized(PLAIN["4:4:4"], 65500, 65500))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert jpegs.size(sized(PLAIN["4:4:4"], 65500, 65500)) == (65500, 65500)


def test_what_pillow_forgives_is_forgiven(jpegs: JpegDecoder) -> None:
    """Rubbish in the middle of the data is a warning of libjpeg's, and an error of simplejpeg's."""
    data = bytearray(PLAIN["4:4:4"])
    data[-300:-290] = b"\x55" * 10
    np.testing.assert_array_equal(PictureReader(jpegs).open(bytes(data)).pixels(), np.asarray(decode_rgb(bytes(data))))


def pixels_or_reason(data: bytes) -> Pixels | str:
    try:
        return np.asarray(decode_rgb(data, max_pixels=1_000_000))
    except BrokenImageError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of Pillow's, which goes on without
def test_headers_with_random_faults_are_refused_in_a_line_or_decoded_as_ever(jpegs: JpegDecoder) -> None:
    reader, draw, decoded, refused = PictureReader(jpegs), random.Random(0), 0, 0
    for name in ("4:2:0", "progressive", "upright by its EXIF", "sRGB by its profile"):
        scan = PLAIN[name].index(b"\xff\xda")
        for _ in range(60):
            data = mutated(PLAIN[name][:scan], draw) + PLAIN[name][scan:]
            expected = pixels_or_reason(data)
            if isinstance(expected, str):
                assert len(expected.splitlines()) == 1
                refused += 1
            else:
                np.testing.assert_array_equal(reader.open(data).pixels(), expected)
                decoded += 1
    assert min(decoded, refused) > 40
