"""Pictures a second of one core, as training sees them: see "A loader for eight GPUs" in docs/training.md.

python -m benchmarks.bench_loader --weights towers/tf_efficientnet_lite0.safetensors      # some minutes
python -m benchmarks.bench_loader --smoke --out /dev/shm/loader.json

Decode, crop, resize and AutoAugment of the same JPEGs with the same seeds, by Pillow (`PillowTransform`, which was all
there was), exact and fast; then tokens and masking of captions. Photographs are mosaics of those of Flickr8k beside the
checkout, where they are there. CPU time of one process: what the rest of the machine does shows in the caches alone.

With `--weights`, of `make towers`, features of that tower are compared too, and those of two crops of a picture.
At the end come the rows of the table on that page, and of each goal whether it is met.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import HERE, RESULTS, NotMeasured, Record, Results, interleaved, measured, rounded, summary
from benchmarks.probes import Settings as ProbeSettings
from benchmarks.probes import tower
from zerovl.data.batches.augmentation import PillowTransform, TrainTransform
from zerovl.data.batches.captions import cut, mask_tokens
from zerovl.data.batches.randomness import RowRandom
from zerovl.data.tokenizer_training import save, train
from zerovl.evaluation.classification.encoding import PixelEncoder
from zerovl.images import decode_rgb
from zerovl.model.text import CaptionTokenizer
from zerovl.params import AugmentParams

PILLOW, EXACT, FAST = "Pillow", "exact", "fast"
PHOTOGRAPHS = HERE.parent.parent / "shared" / "photos" / "flickr8k" / "valid"
SIDE, BYTES = 512, 61_000  # of a picture as crawls have them
MAX_TOKENS = 25
# What was asked for, with pictures of `BYTES` and without AutoAugment: times Pillow's speed, microseconds a caption.
GOALS = {EXACT: 1.8, FAST: 2.5}
CAPTION_GOAL = 50.0
ANOTHER_CROP = 1000  # is added to a seed
WORDS = [f"{first}{last}" for first in ("ba", "du", "ke", "lo", "mi", "pa", "ro", "su") for last in ("nen", "la", "x")]

Prepare = Callable[[bytes, int], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    pictures: int = 8
    rounds: int = 15
    image_size: int = 224
    crop_scale: tuple[float, float] = (0.6, 1.0)  # the recipe's
    captions: int = 512
    micro_batch: int = 64


SMOKE = Settings(pictures=1, rounds=1, image_size=32, captions=8, micro_batch=4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "loader.json", help="result file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; give --out another file")
    parser.add_argument("--weights", type=Path, help="safetensors of EfficientNet-Lite0: features are compared too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = SMOKE if options.smoke else Settings()
    results = Results(options.out, asdict(settings) | {"tower": options.weights.stem if options.weights else None})
    encode = tower(ProbeSettings(), options.weights) if options.weights else None
    for kind, make in (("drawn", drawn), ("photographs", mosaics)):
        for auto_augment in (False, True):
            name = f"{kind}, AutoAugment" if auto_augment else kind
            for variant, record in _pictures(make, settings, auto_augment, encode).items():
                results.add("pictures", f"{name}: {variant}", record)
    results.add("captions", "tokens and masking", measured(partial(captions, settings)))
    print("\n".join([*rows(results.content), *goals(results.content)]))
    return results.status()


def _pictures(
    make: Callable[[int], list[bytes]], settings: Settings, auto_augment: bool, encode: PixelEncoder | None
) -> dict[str, Record]:
    try:
        pictures = make(settings.pictures)
    except NotMeasured as reason:
        return {EXACT: {"not_measured": str(reason)}}
    ways = prepared_by(settings, auto_augment)
    seeds = {name: iter(range(1 << 40)) for name in ways}  # each round other crops, the same for all

    def prepare(name: str) -> None:
        for data in pictures:
            ways[name](data, next(seeds[name]))

    timed = interleaved({name: partial(prepare, name) for name in ways}, settings.rounds, time.process_time)
    found = {}
    for name, seconds in timed.items():
        # The ratio is one of speeds: Pillow's seconds over its own.
        record = summary(timed[PILLOW], seconds)
        own = summary(seconds)["seconds"]
        found[name] = {
            "pictures_per_second": rounded(len(pictures) / own),
            "bytes": round(sum(map(len, pictures)) / len(pictures)),
            **{key: value for key, value in record.items() if "ratio" in key},
            **difference(ways[PILLOW], ways[name], pictures),
            **(cosines(ways[PILLOW], ways[name], pictures, encode) if encode else {}),
        }
    return found


def prepared_by(settings: Settings, auto_augment: bool) -> dict[str, Prepare]:
    """What makes a tensor of a stored picture and a seed, by name."""
    augment, fast = (
        AugmentParams(crop_scale=settings.crop_scale, auto_augment=auto_augment, decode=decode)
        for decode in ("exact", "fast")
    )
    pillow = PillowTransform(settings.image_size, augment)
    return {
        PILLOW: lambda data, seed: pillow(decode_rgb(data), seed),
        EXACT: TrainTransform(settings.image_size, augment),
        FAST: TrainTransform(settings.image_size, fast),
    }


def difference(reference: Prepare, other: Prepare, pictures: Sequence[bytes]) -> Record:
    """Mean and largest difference of values, and the share that differs at all, over two crops of each picture."""
    apart = torch.stack(
        [(reference(data, seed).int() - other(data, seed).int()).abs() for seed in range(2) for data in pictures]
    )
    return {
        "mean_difference": rounded(float(apart.float().mean())),
        "largest_difference": int(apart.max()),
        "share_differing": rounded(float((apart > 0).float().mean())),
    }


def cosines(reference: Prepare, other: Prepare, pictures: Sequence[bytes], encode: PixelEncoder) -> Record:
    """Mean and lowest cosine of features, over two crops of each picture; for the reference those of two crops."""
    drawn_again = ANOTHER_CROP if reference is other else 0
    pairs = [(reference(data, seed), other(data, seed + drawn_again)) for seed in range(2) for data in pictures]
    ours, theirs = (encode(torch.stack(side)) for side in zip(*pairs, strict=True))  # (n, w) each
    found = torch.nn.functional.cosine_similarity(ours, theirs)  # (n,)
    return {"cosine": round(float(found.mean()), 6), "lowest_cosine": round(float(found.min()), 6)}


def drawn(count: int) -> list[bytes]:
    """Pictures of soft patches under grain, whose strength sets the size of their files: about `BYTES`."""
    random_pixels = np.random.default_rng(0)
    found = []
    for _ in range(count):
        grid = random_pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        patches = np.asarray(Image.fromarray(grid).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        grain = random_pixels.normal(0, 4.8, (SIDE, SIDE, 1))
        found.append(_jpeg(Image.fromarray(np.clip(patches + grain, 0, 255).astype(np.uint8)), 88))
    return found


def mosaics(count: int) -> list[bytes]:
    """Sixteen photographs side by side, cut to `SIDE`, in the quality that makes them about `BYTES` large."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[: 16 * count]
    if len(files) < 16 * count:
        raise NotMeasured("the photographs of Flickr8k are not beside the checkout")
    found = []
    for number in range(count):
        mosaic = Image.new("RGB", (SIDE, SIDE))
        for place, file in enumerate(files[16 * number : 16 * (number + 1)]):
            with Image.open(file) as photograph:
                mosaic.paste(photograph.convert("RGB").resize((128, 128)), (place % 4 * 128, place // 4 * 128))
        sizes = (_jpeg(mosaic, quality) for quality in range(50, 96, 5))
        found.append(next((data for data in sizes if len(data) > BYTES), _jpeg(mosaic, 95)))
    return found


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def captions(settings: Settings) -> Record:
    """Microseconds a caption: to tokens in micro-batches, masked, cut; on one thread, as in a loader's worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    words = random.Random(0)
    texts = [" ".join(words.choices(WORDS, k=words.randint(6, 14))) for _ in range(settings.captions)]
    with tempfile.TemporaryDirectory() as folder:
        save(train(lambda: texts, 500), Path(folder))
        tokenize = CaptionTokenizer(folder, MAX_TOKENS)
        tokenize.whole(texts[:1])  # its files are read when they are first needed

    def prepare() -> None:
        for start in range(0, len(texts), settings.micro_batch):
            ids, mask = tokenize.whole(texts[start : start + settings.micro_batch])
            draws = RowRandom(np.arange(len(ids), dtype=np.uint64))
            cut(*mask_tokens(ids, mask, tokenize.special, 0.2, draws), tokenize.special, MAX_TOKENS)

    seconds = interleaved({"captions": prepare}, settings.rounds, time.process_time)["captions"]
    return {"microseconds": rounded(1e6 * summary(seconds)["seconds"] / len(texts))}


def rows(content: Record) -> list[str]:
    """Return the rows of the table in docs/training.md, one for each kind of pictures that was measured."""
    pictures, found = content["pictures"], []
    for kind in [name.removesuffix(f": {PILLOW}") for name in pictures if name.endswith(f": {PILLOW}")]:
        pillow, exact, fast = (pictures[f"{kind}: {way}"] for way in (PILLOW, EXACT, FAST))
        cells = [
            f"{kind}, {pillow['bytes'] / 1000:.0f} kB",
            f"{pillow['pictures_per_second']:,.0f} a second",
            *(f"{its['pictures_per_second']:,.0f}, {its['ratio']:.2f} times" for its in (exact, fast)),
            f"{exact['share_differing']:.2%}, by at most {exact['largest_difference']}",
            f"{fast['mean_difference']:.1f}",
            *(f"{its['cosine']:.6g}, {its['lowest_cosine']:.6g}" for its in (exact,) if "cosine" in its),
            *(f"{its['cosine']:.3f}, {its['lowest_cosine']:.3f}" for its in (fast, pillow) if "cosine" in its),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def goals(content: Record) -> list[str]:
    """Return a line for each goal: what was asked for, what was measured, and whether that is enough."""
    found = []
    for name, record in content["pictures"].items():
        kind, _, way = name.rpartition(": ")
        if way in GOALS and "ratio" in record and "AutoAugment" not in kind:
            met = "met" if record["ratio"] >= GOALS[way] else "missed"
            found.append(f"{name}: {record['ratio']:.2f} times Pillow, goal {GOALS[way]:g}: {met}")
    if microseconds := content["captions"]["tokens and masking"].get("microseconds"):
        met = "met" if microseconds <= CAPTION_GOAL else "missed"
        found.append(f"a caption: {microseconds:.0f} us, goal {CAPTION_GOAL:g}: {met}")
    return found


if __name__ == "__main__":
    sys.exit(main())
