"""Features of frozen towers: computed once for a split, kept in `runs/features/`, and read from there by every run.

A folder `SIDE-DIGEST` belongs to one function of one data set: its digest covers the tower's weights, what happens
to a picture or caption before it, the precision, the code and libraries of both, and the data. All ranks compute,
one chunk in turn each, and write to the same files in a hidden folder, which rank 0 names at the end: what was cut
short is computed again.

Shapes: n pictures or captions of a chunk, w width of a tower, L tokens.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zerovl import code_closure
from zerovl.bundle_files import TOKENIZER as TOKENIZER_FILES
from zerovl.data.batches.augmentation import TrainTransform
from zerovl.data.batches.features import COMPLETE, StoredFeatures, captions_of, lay_out, write_rows
from zerovl.data.batches.sides import Transform
from zerovl.data.batches.workers import OrderedLoader
from zerovl.data.split_reader import ANY_PIXELS, SplitReader
from zerovl.engine.frozen_features import Side, cached_sides, training_image_size, unaugmented_sides
from zerovl.engine.precision import Precision
from zerovl.engine.trainer import StopRequest
from zerovl.engine.weights import named_weights
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_file, sha256_json, write_json
from zerovl.images import decode_rgb
from zerovl.log import logger
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.params import Params
from zerovl.training.run_spec import Run

_FORM = 1  # of the files; a change of it computes all again
_CODE = (
    "data/batches/features.py",
    "engine/patches.py",
    "engine/precision.py",
    "images.py",
    "model/preprocess.py",
    "model/text.py",
)
_LIBRARIES = ("torch", "timm", "transformers", "tokenizers", "pillow")


@dataclass(frozen=True)
class Unaugmented:
    """The picture as evaluation sees it, whatever the seed."""

    transform: EvaluationTransform

    def __call__(self, data: bytes, _rng_seed: int) -> Tensor:
        return self.transform(decode_rgb(data, ANY_PIXELS))


def training_transform(params: Params) -> Transform:
    """Return what happens to a training picture: nothing random where its tower is frozen and augmentation is off."""
    if "image" in unaugmented_sides(params.train):
        return Unaugmented(EvaluationTransform.of(params.model))
    return TrainTransform(training_image_size(params), params.train.augment)


@dataclass(frozen=True)
class FeatureFolder:
    """Features of one side of the training pairs, there or still to be computed."""

    side: Side
    path: Path
    values: dict[str, Any]  # what the digest covers

    @property
    def complete(self) -> bool:
        """Whether they are there."""
        return (self.path / COMPLETE).is_file()

    def __str__(self) -> str:
        whose = "the image tower makes of pictures" if self.side == "image" else "the text tower makes of captions"
        state = "is read from" if self.complete else "is computed before the first step and then read from"
        return f"what {whose} {state} {self.path}/"


def feature_folders(run: Run, model: DualEncoder) -> list[FeatureFolder]:
    """Return where the features of frozen towers lie or will lie, for the sides that have the same at every visit.

    Call it with the weights that the run goes on with.
    """
    found = []
    for side in cached_sides(run.params):
        values = _description(run, model, side)
        digest = sha256_json(values)[:16]
        found.append(FeatureFolder(side, run.workspace.runs / "features" / f"{side}-{digest}", values))
    return found


def stored_features(
    run: Run, model: DualEncoder, precision: Precision, folders: list[FeatureFolder], stop: StopRequest
) -> dict[Side, StoredFeatures] | None:
    """Compute what is not there yet; a collective. None where `stop` came first: nothing of it is kept then.

    Raises `ZeroVLError` for a damaged shard, and where the disk does not take the features.
    """
    for folder in folders:
        (missing,) = run.ranks.any(run.ranks.is_first and not folder.complete)
        if missing and not _compute(run, model, precision, folder, stop):
            return None
    return {folder.side: StoredFeatures(folder.path) for folder in folders}


def _description(run: Run, model: DualEncoder, side: Side) -> dict[str, Any]:
    settings, tokenizer, architecture = run.params.model, run.spec.tokenizer, model.architecture
    if side == "image":
        tower: Any = [architecture.image_tower, architecture.image_options]
        transform = EvaluationTransform.of(settings)
        before: Any = [transform.image_size, transform.resize_size, settings.mean, settings.std]
        if transform != EvaluationTransform(transform.image_size, transform.resize_size):  # features of before had that
            before += [transform.resize_mode, transform.interpolation]
    else:
        tower = architecture.text_config
        files = (tokenizer.folder / name for name in TOKENIZER_FILES)
        before = [tokenizer.max_tokens, {path.name: sha256_file(path) for path in files if path.is_file()}]
    code = code_closure.digests("train")
    return {
        "form": _FORM,
        "side": side,
        "tower": [tower, _weights(model, side)],
        "before": before,
        "precision": run.params.train.precision,
        **({"residual_stream": "low"} if run.params.train.residual_stream == "low" else {}),
        "data": run.spec.manifest.digest,
        "code": {name: code[name] for name in _CODE},
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _weights(model: DualEncoder, side: Side) -> str:
    """Digest of a tower's weights."""
    tower: nn.Module = getattr(model, f"{side}_tower")
    digest = hashlib.sha256()
    for name, tensor in sorted(named_weights(tower).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _compute(run: Run, model: DualEncoder, precision: Precision, folder: FeatureFolder, stop: StopRequest) -> bool:
    """Fill a folder, all ranks together; whether it was finished."""
    ranks, manifest = run.ranks, run.spec.manifest
    aside = folder.path.with_name(f".{folder.path.name}.{run.spec.name}.part")
    tower = _Tower(model, precision, folder.side)
    logger().info(f"features of the frozen {folder.side} tower: computed once, into {folder.path}")
    try:
        if ranks.is_first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for source in manifest.sources("train"):
                lay_out(aside, manifest, source, tower.width, of_captions=folder.side == "text")
        ranks.any(False)  # the files are there
        for source in manifest.sources("train"):
            for start, rows in _features(run, tower, source):
                ranks.activity.mark("computing features of a frozen tower")
                write_rows(aside, source, start, rows.numpy())
                if stop.name is not None:
                    break
        (stopped,) = ranks.any(stop.name is not None)
        if ranks.is_first:
            _finish(aside, folder, stopped)
        ranks.any(False)  # the folder has its name
    except OSError as error:
        raise ZeroVLError(
            f"{aside}: features cannot be written ({error}); free some space (4 bytes x width of the tower for each "
            "picture or caption), or set machine.cache_features to false"
        ) from None
    return not stopped


def _finish(aside: Path, folder: FeatureFolder, stopped: bool) -> None:
    """Give what is whole its name; another run may have been faster."""
    if not stopped:
        write_json(aside / COMPLETE, folder.values)
        if not folder.complete:
            shutil.rmtree(folder.path, ignore_errors=True)
            os.replace(aside, folder.path)
    shutil.rmtree(aside, ignore_errors=True)


def _features(run: Run, tower: _Tower, source: str) -> Iterator[tuple[int, Tensor]]:
    """This rank's chunks of a source: where each begins, and its features (n, w)."""
    size, rank, world = run.params.evaluate.batch_size, run.ranks.rank, run.ranks.world_size
    if tower.side == "text":
        captions = (caption for of_pair in captions_of(run.spec.manifest, source) for caption in of_pair)
        number = 0
        while chunk := list(islice(captions, size)):
            if number % world == rank:
                yield number * size, tower(*map(torch.from_numpy, run.spec.tokenizer(chunk)))
            number += 1
        return
    reader = SplitReader(run.spec.manifest, run.shards.reader(), "train")
    transform = training_transform(run.params)
    chunks = PictureChunks(reader, source, run.spec.manifest.pairs(source, "train"), transform, size, rank, world)
    workers = run.params.machine.loader_workers
    lower = "machine.loader_workers or evaluate.batch_size" if workers else "evaluate.batch_size"
    with OrderedLoader(chunks, workers, prefetch=workers, lower=lower) as loader:
        for index, pixels in enumerate(loader):
            yield chunks.start(index), tower(pixels)


@dataclass(frozen=True)
class PictureChunks(Dataset[Tensor]):
    """Pixels (n, 3, H, W) of a rank's chunks of a source: every `world`-th one, from number `rank` on."""

    reader: SplitReader
    source: str
    pairs: int
    transform: Transform
    size: int
    rank: int
    world: int

    def __len__(self) -> int:
        return len(range(self.rank, -(-self.pairs // self.size), self.world))

    def __getitem__(self, index: int) -> Tensor:
        start = self.start(index)
        rows = range(start, min(start + self.size, self.pairs))
        return torch.stack([self._pixels(row) for row in rows])

    def _pixels(self, row: int) -> Tensor:
        sample = self.reader.sample(self.source, row)
        return self.reader.decoded(self.source, row, sample, lambda data: self.transform(data, 0))

    def start(self, index: int) -> int:
        """Return the row that a chunk begins with."""
        return (self.rank + index * self.world) * self.size


class _Tower:
    """One tower of a model without its projection, as the steps go through it."""

    def __init__(self, model: DualEncoder, precision: Precision, side: Side) -> None:
        self.side = side
        self._model = model
        self._precision = precision
        self._run: Callable[..., Tensor] = self._image if side == "image" else model.text_hidden
        projection: nn.Linear = getattr(model, f"{side}_projection")
        self.width = projection.in_features

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """Features (n, w) in float32, on the CPU."""
        device = self._precision.device
        # To compile for the size of these chunks takes longer than to run them as they are.
        with torch.compiler.set_stance("force_eager"), self._precision.autocast():
            return self._run(*(tensor.to(device) for tensor in inputs)).float().cpu()

    def _image(self, images: Tensor) -> Tensor:
        features: Tensor = self._model.image_tower(self._model.normalise(images))
        return features
