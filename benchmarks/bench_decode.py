"""Pictures a second that nvJPEG decodes and a GPU cuts and resizes, beside the exact path of one core.

    python -m benchmarks.bench_decode
    python -m benchmarks.bench_decode --smoke --out /dev/shm/decode.json      # tiny, also on a CPU

JPEGs of 512 pixels and about 67 kB (`settings.bytes` of the result) to 224 pixels with the recipe's crops. On the GPU
from the files in memory to pixels there, seconds by the clock until it is done; the loader's part is to read the
header, draw the crop and pack the files, measured on one core. Without a GPU its figure is not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_train import picture
from benchmarks.common import RESULTS, Record, Results, interleaved, rounded, summary
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.encoded_pictures import EncodedPicture, EncodedPictures, pack
from zerovl.data.batches.gpu_decoding import BatchedDecoding, NvJpeg, nvjpeg_problem
from zerovl.device import own_device
from zerovl.params import AugmentParams


@dataclass(frozen=True)
class Settings:
    pictures: int = 512  # of a micro-batch
    on_one_core: int = 32  # of them
    side: int = 512
    image_size: int = 224
    crop_scale: tuple[float, float] = (0.6, 1.0)
    rounds: int = 7


SMOKE = Settings(pictures=4, on_one_core=2, side=64, image_size=32, rounds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "decode.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, also on a CPU; give --out another file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = SMOKE if options.smoke else Settings()
    random = np.random.default_rng(0)
    files = [picture(random, settings.side) for _ in range(settings.pictures)]
    transform = TrainTransform(settings.image_size, AugmentParams(crop_scale=settings.crop_scale))
    results = Results(options.out, asdict(settings) | {"bytes": round(sum(map(len, files)) / len(files))})
    few = files[: settings.on_one_core]
    exact = partial(one_by_one, transform, few)
    results.add("decode", "exact, one core", rate(exact, len(few), settings.rounds, time.process_time))
    sent = partial(packed, transform, files)
    results.add("decode", "packed for a GPU, one core", rate(sent, len(files), settings.rounds, time.process_time))
    results.add("decode", "nvJPEG", on_gpu(packed(transform, files), settings))
    return results.status()


def one_by_one(transform: TrainTransform, files: Sequence[bytes]) -> None:
    """Decode one after the other, as a loader process does."""
    for seed, data in enumerate(files):
        transform(data, seed)


def packed(transform: TrainTransform, files: Sequence[bytes]) -> EncodedPictures:
    """Return the files as a loader process sends them."""
    encoded = {}
    for place, data in enumerate(files):
        found = transform.cut_of_jpeg(data, place)
        assert found is not None
        encoded[place] = EncodedPicture(torch.frombuffer(bytearray(data), dtype=torch.uint8), *found, "")
    return pack(encoded, {}, transform.image_size)


def on_gpu(pictures: EncodedPictures, settings: Settings) -> Record:
    """Decode a micro-batch on the GPU, wholly and without the cut and resize."""
    device = own_device()
    if problem := nvjpeg_problem(device):
        return {"not_measured": problem}
    decoding, jpegs = BatchedDecoding(NvJpeg(device)), NvJpeg(device)
    group = [encoded.file for encoded in pictures.encoded().values()][:128]

    def whole() -> None:
        decoding(pictures, device)
        torch.cuda.synchronize(device)

    def decoded() -> None:
        jpegs(group)
        torch.cuda.synchronize(device)

    found = rate(whole, len(pictures), settings.rounds, time.perf_counter)
    without = rate(decoded, len(group), settings.rounds, time.perf_counter)
    return found | {"decoded_alone": without["pictures_per_second"], "refused": decoding.refused}


def rate(work: Callable[[], object], pictures: int, rounds: int, clock: Callable[[], float]) -> Record:
    """Return pictures a second of work that is done several times."""
    seconds = interleaved({"": work}, rounds, clock)[""]
    return {"pictures_per_second": rounded(pictures / summary(seconds)["seconds"])}


if __name__ == "__main__":
    sys.exit(main())
