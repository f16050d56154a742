"""JPEGs that nvJPEG decodes show what libjpeg-turbo shows, within bounds; what it refuses is what it was."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.support.encoded import as_loaded, coloured_blocks, levels_apart, planes, soft, stored
from tests.support.towers import batch, model, step_context
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.encoded_pictures import EncodedPictures, decode_exactly
from zerovl.data.batches.gpu_decoding import BatchedDecoding, NvJpeg, nvjpeg_problem
from zerovl.data.batches.sides import PicturesAsStored
from zerovl.distributed.ranks import Ranks
from zerovl.engine.precision import Precision
from zerovl.engine.steps import DecoupledStep, StepContext
from zerovl.engine.transfer import OwnStream
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix
from zerovl.params import AugmentParams

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
CROPS = AugmentParams(crop_scale=(0.6, 1.0), flip_probability=0.5)


@pytest.fixture
def nvjpeg(device: torch.device) -> NvJpeg:
    problem = nvjpeg_problem(device)
    assert problem is None, problem
    return NvJpeg(device)


def loaded(files: list[bytes], side: int = 224) -> EncodedPictures:
    return as_loaded(PicturesAsStored(TrainTransform(side, CROPS)), files)


# Mean and largest difference in levels. Whole colours differ by rounding alone. Halved ones are repeated where
# libjpeg-turbo interpolates: that shows at edges between colours. How far photographs are apart is not measured.
@pytest.mark.parametrize(
    ("name", "subsampling", "mean", "most"),
    [
        ("soft", "4:4:4", 1.0, 6),
        ("blocks", "4:4:4", 1.0, 8),
        ("soft", "4:2:0", 2.0, 12),
        ("blocks", "4:2:0", 6.0, 90),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_differ_from_exact_ones_by_no_more_than_is_said(
    device: torch.device, nvjpeg: NvJpeg, name: str, subsampling: str, mean: float, most: int, progressive: bool
) -> None:
    draw = {"soft": soft, "blocks": coloured_blocks}[name]
    options = {"quality": 90, "subsampling": subsampling, "progressive": progressive}
    pictures = loaded([stored(draw(512, seed), **options) for seed in range(12)])
    decoding = BatchedDecoding(nvjpeg)
    found = decoding(pictures, device)
    assert found.device.type == "cuda"
    assert (decoding.decoded, decoding.arrived, decoding.refused) == (12, 0, 0)
    apart = levels_apart(found, decode_exactly(pictures, CPU))
    print(f"{name} {subsampling} progressive={progressive}: mean {apart[0]:.3f}, largest {apart[1]} levels")
    assert apart[0] <= mean
    assert apart[1] <= most


def test_a_mixed_batch_arrives_in_order(device: torch.device, nvjpeg: NvJpeg) -> None:
    image = [soft(side, side) for side in (96, 301, 64, 512, 130, 200, 77)]
    whole = {"quality": 90, "subsampling": "4:4:4"}
    files = [
        stored(image[0], **whole),
        stored(image[1], "PNG"),
        stored(image[2], **whole),
        stored(image[3].convert("CMYK")),
        stored(image[4].convert("L")),
        stored(image[5], **whole),
        stored(image[6], progressive=True, **whole),
    ]
    pictures = loaded(files, side=48)
    # In the place of the sixth file another one of its size, which is no JPEG, as bytes that were damaged on a disk.
    png = stored(image[5], "PNG")
    shifted = pictures.rows.clone()
    shifted[5, 0], shifted[5, 1] = len(pictures.files), len(pictures.files) + len(png)
    pictures = replace(pictures, files=torch.cat([pictures.files, planes(png)]), rows=shifted)
    expected = decode_exactly(pictures, CPU)
    for at_once in (128 << 20, 3 * 96 * 96):  # all in one group, and each in its own
        decoding = BatchedDecoding(nvjpeg, at_once)
        found = decoding(pictures, device)
        assert (decoding.decoded, decoding.arrived, decoding.refused) == (3, 3, 1)
        for place in range(len(files)):
            assert levels_apart(found[place], expected[place])[1] <= 8, place
        exact = [1, 3, 4, 5]
        assert torch.equal(found[exact].cpu(), expected[exact])


def test_a_picture_that_nothing_decodes_is_named(device: torch.device, nvjpeg: NvJpeg) -> None:
    pictures = loaded([stored(soft(64, seed)) for seed in range(3)], side=32)
    files = pictures.files.clone()
    first, end = pictures.rows[1, :2].tolist()
    files[first:end] = 7
    with pytest.raises(ZeroVLError, match="the picture of sample 1 no longer decodes"):
        BatchedDecoding(nvjpeg)(replace(pictures, files=files), device)
    found = BatchedDecoding(nvjpeg)(pictures, device)  # it goes on with the next ones
    assert levels_apart(found, decode_exactly(pictures, CPU))[1] <= 40


def test_memory_that_is_used_again_is_not_written_while_it_is_read(device: torch.device, nvjpeg: NvJpeg) -> None:
    """nvJPEG has a stream of its own: many small groups one after the other take each other's memory."""
    pictures = loaded([stored(soft(256, seed), subsampling="4:4:4") for seed in range(32)], side=224)
    expected = BatchedDecoding(nvjpeg)(pictures, device)
    for _ in range(10):
        assert torch.equal(BatchedDecoding(nvjpeg, at_once=1)(pictures, device), expected)


def test_a_step_decodes_pictures_on_their_way(device: torch.device, one_rank: Ranks, nvjpeg: NvJpeg) -> None:
    """Loss and gradients are those of the same pixels, decoded before; kept for the second pass, and decoded twice."""
    dual = model().to(device).train()
    plain = step_context(dual, one_rank, Precision("float32", device), 3)
    decoding = BatchedDecoding(nvjpeg)
    parts = batch(2)
    before: list[Tensor] = []
    for part in parts:
        files = [stored(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in part.images]
        part.images = replace(loaded(files, side=32), decoder=decoding)  # type: ignore[assignment]
        before.append(part.images.to(device))
    losses = []
    for room in (512 << 20, 0):
        transfer = OwnStream(device, room)
        context = StepContext(dual, one_rank, plain.precision, plain.loss, 3, plain.gradients, transfer=transfer)
        decoding.decoded = 0
        losses.append(DecoupledStep(context)(parts, Mix("image", 0.4), 6))
        pictures = sum(len(part.input_ids) for part in parts)
        assert decoding.decoded == (pictures if room else 2 * pictures)
    for part, pixels in zip(parts, before, strict=True):
        part.images = pixels
    losses.append(DecoupledStep(plain)(parts, Mix("image", 0.4), 6))
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-5, atol=1e-5)
