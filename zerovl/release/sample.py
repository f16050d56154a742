"""The fixed sample of a release: a few validation pairs with their embeddings.

    sample/pairs.tar                 WebDataset: the pictures' stored bytes, and JSON with the captions
    sample/embeddings.safetensors    image_emb (n, D), text_emb (n, D) of each picture's first caption, float32

Whoever is about to use a release embeds the sample again and compares all n x n cosines. Another
machine or another precision rounds otherwise; a wrong tokenizer, preprocessing or tower does far more.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from zerovl.data.shards import Sample
from zerovl.errors import ZeroVLError
from zerovl.evaluation.pool import Embeddings, Ints, Pool
from zerovl.files import atomic_write
from zerovl.model.encoder import Encoder
from zerovl.registry.release_files import SAMPLE, SAMPLE_EMBEDDINGS, SAMPLE_PAIRS
from zerovl.release.sample_pairs import read_pairs

TOLERANCE = 1e-2  # of a cosine


def draw(pool: Pool, count: int, seed: int) -> Ints:
    """Return the rows of at most `count` images of the pool, ascending; the same seed draws the same ones."""
    images = len(pool.keys)
    return np.sort(np.random.default_rng(seed).permutation(images)[:count]).astype(np.int64)


def write(folder: Path, pool: Pool, embeddings: Embeddings, images: Ints, fetch: Callable[[int], Sample]) -> None:
    """Write the sample of `images`, rows of the pool; without any, an empty tar and embeddings of n = 0.

    `fetch` gives the stored sample of a row.
    """
    captions = np.searchsorted(pool.caption_image, images)  # the first caption of each
    with (
        atomic_write(folder / SAMPLE_PAIRS) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, image in enumerate(images):
            stored = fetch(int(image))
            record = {
                "key": stored.key,
                "source": stored.source,
                "image_id": stored.image_id,
                "captions": stored.captions,
                "caption_ids": stored.caption_ids,
            }
            for suffix, data in (("jpg", stored.image), ("json", json.dumps(record, ensure_ascii=False).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")  # time, user and group 0: the same bytes each time
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    with atomic_write(folder / SAMPLE_EMBEDDINGS) as file:
        file.write(
            save(
                {
                    "image_emb": embeddings.image[torch.from_numpy(images)].float().contiguous(),
                    "text_emb": embeddings.text[torch.from_numpy(captions)].float().contiguous(),
                }
            )
        )


def check(folder: Path) -> str:
    """Load a release's folder and embed its sample again; returns a sentence on what was found.

    Raises:
        ZeroVLError: the model cannot be loaded, the sample is damaged, or a cosine differs by more than
            `TOLERANCE`; names the worst pair.
    """
    encoder = Encoder.load(folder)
    if not (folder / SAMPLE / SAMPLE_PAIRS).is_file():
        return "note: the release has no sample, so it was loaded but not scored"
    keys, pictures, captions = read_pairs(folder / SAMPLE / SAMPLE_PAIRS)
    stored = _read_embeddings(folder / SAMPLE / SAMPLE_EMBEDDINGS, len(keys))
    if not keys:
        return "note: the release's sample is empty, so it was loaded but not scored"
    pixels = torch.stack([encoder.transform(picture) for picture in pictures])
    found = Embeddings(encoder.encode_pixels(pixels), encoder.encode_text(captions))
    expected, cosines = (its.image @ its.text.T for its in (stored, found))  # (n, n) each
    difference = (cosines - expected).abs().nan_to_num(nan=torch.inf)
    worst = float(difference.max())
    if worst > TOLERANCE:
        row, column = divmod(int(difference.argmax()), len(keys))
        raise ZeroVLError(
            f"it does not score as when it was made: the cosine of picture {keys[row]} and caption "
            f"{captions[column]!r} is {cosines[row, column]:.4f}, its sample says {expected[row, column]:.4f} "
            f"(at most {TOLERANCE} apart is allowed); load it with the versions of code and packages that its "
            "provenance.json names, or train and register it again"
        )
    return f"{len(keys)} sample pairs embedded again: cosines within {worst:.1e} of those stored"


def _read_embeddings(path: Path, count: int) -> Embeddings:
    try:
        tensors = load_file(path)
        embeddings = Embeddings(tensors["image_emb"], tensors["text_emb"])
    except (SafetensorError, OSError, KeyError) as error:
        raise ZeroVLError(f"{path}: no readable embeddings ({error!r}); register the model again") from None
    if not len(embeddings.image) == len(embeddings.text) == count:
        raise ZeroVLError(
            f"{path}: {len(embeddings.image)} pictures and {len(embeddings.text)} captions, but {SAMPLE_PAIRS} has "
            f"{count} pairs; register the model again"
        )
    return embeddings
