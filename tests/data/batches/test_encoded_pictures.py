"""Pictures that travel as JPEGs become what the loader would have made of them, whatever decodes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.encoded import Imitated, as_loaded, levels_apart, planes, soft, stored
from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_fixture import WordTokenizer, Written, write
from zerovl.data.batches import gpu_decoding
from zerovl.data.batches.arrangement import ByCaptionLength
from zerovl.data.batches.augmentation import Cut, TrainTransform
from zerovl.data.batches.encoded_pictures import EncodedPictures, decode_exactly, fits_a_device, joined
from zerovl.data.batches.gpu_decoding import BatchedDecoding, nvjpeg_problem
from zerovl.data.batches.sides import PicturesAsStored
from zerovl.errors import ZeroVLError
from zerovl.params import AugmentParams
from zerovl.picture_reader import Size

CPU = torch.device("cpu")
SIDE = 24
CROPS = TrainTransform(SIDE, AugmentParams(crop_scale=(0.4, 1.0), flip_probability=0.5))
GREY = stored(soft(50, 3).convert("L"))
TURNED = stored(soft(40, 4), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
FILES = [
    stored(soft(60, 0)),
    stored(soft(90, 1), "PNG"),
    stored(soft(33, 2)),
    GREY,
    TURNED,
    stored(soft(70, 5), progressive=True),
]
FIRST_TWO = 3 * 60 * 60 + 3 * 33 * 33 + 4 * 3 * 60 * 60  # bytes: the first two JPEGs, and the larger one in float32
DECODED = [1, 3, 4]  # no plain JPEGs


def loaded(files: Sequence[bytes] = FILES) -> EncodedPictures:
    return as_loaded(PicturesAsStored(CROPS), files)


def test_exactly_decoded_they_are_what_the_loader_makes() -> None:
    pictures = loaded()
    assert sorted(pictures.decoded()) == DECODED
    expected = torch.stack([CROPS(file, seed) for seed, file in enumerate(FILES)])
    assert torch.equal(decode_exactly(pictures, CPU), expected)
    assert torch.equal(pictures.to(CPU), expected)  # what does so where nothing else was named
    assert pictures.shape == expected.shape
    assert pictures.nbytes == expected.nbytes
    assert len(pictures) == len(FILES)


@pytest.mark.parametrize("flip_probability", [0.0, 1.0])
@pytest.mark.parametrize("at_once", [1, FIRST_TWO - 1, FIRST_TWO, 1 << 30])
def test_decoded_in_batches_they_are_so_to_one_level(at_once: int, flip_probability: float) -> None:
    augment = AugmentParams(crop_scale=(0.4, 1.0), flip_probability=flip_probability)
    pictures, decoder = as_loaded(PicturesAsStored(TrainTransform(SIDE, augment)), FILES), Imitated()
    decoding = BatchedDecoding(decoder, at_once)
    mean, most = levels_apart(decoding(pictures, CPU), decode_exactly(pictures, CPU))
    assert most <= 1
    assert mean < 0.05
    assert (decoding.decoded, decoding.arrived, decoding.refused) == (3, 3, 0)
    assert decoder.batches == {FIRST_TWO: [2, 1], 1 << 30: [3]}.get(at_once, [1, 1, 1])


def test_what_is_refused_is_decoded_exactly_and_counted_and_the_order_stays() -> None:
    pictures = loaded()
    expected = decode_exactly(pictures, CPU)
    for refused in ([FILES[0]], [FILES[2]], [FILES[0], FILES[5]], [FILES[0], FILES[2], FILES[5]]):
        decoding = BatchedDecoding(Imitated(refused))
        found = decoding(pictures, CPU)
        assert levels_apart(found, expected)[1] <= 1
        exact = [*DECODED, *(FILES.index(file) for file in refused)]
        assert torch.equal(found[exact], expected[exact])
        assert (decoding.decoded, decoding.arrived, decoding.refused) == (3 - len(refused), 3, len(refused))
        assert f"{len(refused)} that nvJPEG refused" in decoding.told()


def test_pixels_of_another_size_are_not_used() -> None:
    class Smaller(Imitated):
        def __call__(self, files: Sequence[Tensor]) -> list[Tensor]:
            return [pixels[:, :-1] for pixels in super().__call__(files)]

    pictures, decoding = loaded(), BatchedDecoding(Smaller())
    assert torch.equal(decoding(pictures, CPU), decode_exactly(pictures, CPU))
    assert decoding.refused == 3


def test_a_gpu_that_has_no_memory_left_is_no_refusal() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        BatchedDecoding(Imitated([FILES[0]], "CUDA error: out of memory"))(loaded(), CPU)


@pytest.mark.parametrize("status", [3, 4, 6, 9, 10])
@pytest.mark.parametrize("words", ["Failed to get image info", "Failed to decode batch"])
def test_a_fault_of_the_jpeg_is_a_refusal(status: int, words: str) -> None:
    decoding = BatchedDecoding(Imitated([FILES[0]], f"Error while decoding JPEG images: {words}: {status}"))
    decoding(loaded(), CPU)
    assert decoding.refused == 1


@pytest.mark.parametrize("status", [1, 2, 5, 7, 8, 30])
def test_a_fault_of_the_gpu_is_none(status: int) -> None:
    said = f"Error while decoding JPEG images: Failed to decode batch: {status}"
    for files, named in (
        (FILES, "the picture of sample 0 and 2 others"),
        (FILES[:1], "the picture of sample 0"),
    ):
        decoding = BatchedDecoding(Imitated([FILES[0]], f"{said}\nException raised from decode_images"))
        with pytest.raises(ZeroVLError) as caught:
            decoding(loaded(files), CPU)
        assert str(caught.value).startswith(f"{named}: nvJPEG failed ({said}; 5 means")
        assert str(caught.value).endswith("lower train.micro_batch, or set machine.decode_on to cpu")
        assert decoding.refused == 0


@pytest.mark.parametrize(("refused", "times"), [(51, 1), (50, 0)])
def test_many_refusals_are_told_once_while_the_training_runs(
    refused: int, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = loaded(FILES[:1]), loaded([FILES[2]])
    decoding = BatchedDecoding(Imitated([FILES[2]]))
    first = joined([good] * (999 - refused) + [bad] * refused)
    with caplog.at_level("WARNING", logger="zerovl"):
        decoding(first, CPU)  # type: ignore[arg-type]
        assert not caplog.text  # too few to tell
        for _ in range(3):
            decoding(good, CPU)
    assert caplog.text.count(f"nvJPEG refused {refused} of the first 1,000 pictures") == times
    assert len(caplog.records) == times


def test_a_picture_that_nothing_decodes_is_named() -> None:
    pictures = loaded()
    files = pictures.files.clone()
    first, end = pictures.rows[2, :2].tolist()
    files[first:end] = 7
    damaged = planes(files[first:end].numpy().tobytes())
    for decoder in (decode_exactly, BatchedDecoding(Imitated([damaged.numpy().tobytes()]))):
        with pytest.raises(ZeroVLError, match=r"sample 2 no longer decodes \(not a picture\).*dvc pull"):
            decoder(replace(pictures, files=files), CPU)


def test_a_jpeg_that_was_cut_off_does_not_travel() -> None:
    """Its header is whole: only who decodes it would notice."""
    with pytest.raises(ValueError, match="truncated"):
        loaded([FILES[0][:-40]])


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((2990, 2990), 224, True),
        ((3000, 2990), 224, False),  # with its copy in float32 more than 128 MiB
        ((64 * 32, 900), 32, True),
        ((64 * 32 + 1, 900), 32, False),  # no GPU makes so little of it
        ((900, 64 * 32 + 1), 32, False),
    ],
)
def test_a_picture_that_is_too_much_for_a_gpu_is_left_to_the_loader(size: Size, side: int, expected: bool) -> None:
    assert fits_a_device(size, Cut((0, 0, *size), False), side) == expected


def test_what_is_left_to_the_loader_arrives_decoded() -> None:
    large = stored(soft(50, 7).resize((3100, 2990)))
    pictures = loaded([large, FILES[0]])
    assert sorted(pictures.decoded()) == [0]
    assert torch.equal(pictures.to(CPU)[0], CROPS(large, 0))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_holds_rgb_is_left_to_the_loader(progressive: bool) -> None:
    rgb = stored(soft(40, 8), keep_rgb=True, progressive=progressive)
    named = rgb.replace(b"Adobe", b"Adole")  # the names of its channels alone say so now
    ycbcr = stored(soft(40, 8), progressive=progressive)
    # Adobe's own segment before the rest: 1 says YCbCr, as its programs write it.
    adobe = ycbcr[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" + ycbcr[2:]
    pictures = loaded([rgb, named, ycbcr, adobe])
    assert sorted(pictures.decoded()) == [0, 1]
    assert torch.equal(
        pictures.to(CPU), torch.stack([CROPS(file, seed) for seed, file in enumerate([rgb, named, ycbcr, adobe])])
    )


def test_pictures_can_be_joined_and_chosen() -> None:
    parts = [loaded(FILES[:2]), loaded(FILES[2:4]), loaded([FILES[0]]), loaded([GREY])]
    expected = torch.cat([decode_exactly(part, CPU) for part in parts])
    whole = joined(parts)
    assert torch.equal(whole.to(CPU), expected)
    places = torch.tensor([5, 0, 3, 4, 1])
    assert isinstance(whole, EncodedPictures)
    part = whole[places]
    assert torch.equal(part.to(CPU), expected[places])
    assert len(part.pixels) == len(part.decoded()) == 3
    fewer = part[torch.tensor([4, 3])]
    assert torch.equal(fewer.to(CPU), expected[places[[4, 3]]])
    assert len(fewer.pixels) == 1  # not the others, which would be pinned with it
    assert torch.equal(whole.to(CPU), expected)  # as it was
    assert [whole[places].where[place] for place in (1, 3)] == [parts[0].where[0], parts[2].where[0]]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, SIZES)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("arrange", [iter, ByCaptionLength(WordTokenizer.special.pad)])
def test_batches_are_those_of_a_loader_that_decodes(written: Written, workers: int, arrange: object) -> None:
    options = {"start_step": 6, "workers": workers, "arrange": arrange}
    as_stored = PicturesAsStored(TrainTransform(24, AugmentParams()))
    with batches_of(written, **options) as plain, batches_of(written, images=as_stored, **options) as batches:
        for expected, found in zip(plain, batches, strict=True):
            assert len(found.micro_batches) * len(found.micro_batches[0].keys) == BATCH
            for one, other in zip(expected.micro_batches, found.micro_batches, strict=True):
                assert one.keys == other.keys
                assert isinstance(other.images, EncodedPictures)
                assert torch.equal(one.images.to(CPU), other.images.to(CPU))
                assert torch.equal(one.input_ids, other.input_ids)


def test_without_a_gpu_it_is_said() -> None:
    assert nvjpeg_problem(CPU) == "there is no GPU"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            AttributeError("object has no attribute 'decode_jpegs_cuda'"),
            "torchvision's extension for images is not loaded (object has no attribute 'decode_jpegs_cuda')",
        ),
        (ImportError("No module named 'torchvision'"), "No module named 'torchvision'"),
        (RuntimeError("not compiled with nvJPEG support\nException raised"), "not compiled with nvJPEG support"),
    ],
)
def test_without_a_torchvision_that_decodes_it_is_said(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: torch.device) -> None:
        raise error

    monkeypatch.setattr(gpu_decoding, "NvJpeg", fail)
    assert nvjpeg_problem(torch.device("cuda")) == said
