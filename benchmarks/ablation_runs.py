"""One run of the ablation: its data, `zerovl train`, and the score of what it made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.common import zerovl_to_log
from zerovl import params_file
from zerovl.data.batches.features import COMPLETE
from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.evaluation.pool import Embeddings, Model, Pool, encode
from zerovl.evaluation.scores import by_source, rank
from zerovl.evaluation.validation_set import validation_batches
from zerovl.files import read_json, sha256_json, write_json
from zerovl.model.dual_encoder import l2_normalise
from zerovl.model.encoder import Encoder
from zerovl.params import Params
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml

_BATCH, _CHUNK = 128, 1024


@dataclass(frozen=True)
class Fold:
    """A folder with packed and validated data, which lack the training pairs of one source."""

    folder: Path
    held_out: str
    data: Sequence[str]  # overrides of the recipe
    digest: str  # of the packed data

    def settings(self, recipe: Path, changes: Sequence[str]) -> Params:
        """Return the recipe with the fold's data and the changes."""
        return _settings(recipe, [*self.data, *changes])


def prepare(folder: Path, recipe: Path, raw: Mapping[str, Path], towers: Path, held_out: str = "") -> Fold:
    """Pack and validate sources, `held_out` for validation alone; at once where that is done already."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [
        f"{{name: {name}, path: {path}, splits: [{'valid' if name == held_out else 'train, valid'}]}}"
        for name, path in raw.items()
    ]
    data = [
        f"data.sources=[{', '.join(sources)}]",
        "model.image_tower.name=tf_efficientnet_lite0",
        f"model.image_tower.weights={towers}/tf_efficientnet_lite0.safetensors",
        f"model.text_tower.name={towers}/all-MiniLM-L6-v2",
    ]
    workspace = Workspace(folder)
    if not (workspace.validation_report / "verdict.json").is_file():
        params_file.write(_settings(recipe, data), folder / "params.yaml")
        _run("prepare", folder)
        _run("validate", folder)
    return Fold(folder, held_out, data, read_json(workspace.manifest_file)["digest"])


def share_features(fold: Fold, donors: Sequence[Fold]) -> None:
    """Give a fold what frozen towers made of its sources in other folds: the same files, named by its own data."""
    own = Manifest.load(Workspace(fold.folder).manifest)
    found: dict[str, dict[str, Path]] = {}  # by the folder's name, where each source's files are
    head: dict[str, Any] = {}
    for donor in donors:
        theirs = Manifest.load(Workspace(donor.folder).manifest)
        for complete in (Workspace(donor.folder).runs / "features").glob(f"*/{COMPLETE}"):
            values = read_json(complete) | {"data": fold.digest}
            name = f"{values['side']}-{sha256_json(values)[:16]}"
            head[name] = values
            for source in own.sources("train"):
                if theirs.splits.get((source, "train")) == own.splits[source, "train"]:
                    found.setdefault(name, {})[source] = complete.parent
    for name, places in found.items():
        out = Workspace(fold.folder).runs / "features" / name
        if not out.exists() and places.keys() == set(own.sources("train")):
            aside = out.with_name(f".{name}")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for source, folder in places.items():
                for file in folder.glob(f"{source}.*"):
                    os.link(file, aside / file.name)
            write_json(aside / COMPLETE, head[name])
            aside.rename(out)


def _settings(recipe: Path, changes: Sequence[str]) -> Params:
    return params_file.from_recipe(read_yaml(recipe), list(changes), str(recipe))


def measure(fold: Fold, settings: Params) -> dict[str, Any]:
    """Train, and return RSUM of each source's validation pairs."""
    workspace = Workspace(fold.folder)
    params_file.write(settings, fold.folder / "params.yaml")
    _run("train", fold.folder)
    model = Encoder.load(workspace.model)
    if _is_frozen(settings):
        rsum = score(fold, model.model.image_projection, model.model.text_projection)
    else:
        rsum = _rsum(*_embedded(fold, model, model))
    training = read_json(workspace.training_report / "metrics.json")
    return {
        "steps": training["steps"],
        "pairs_seen": training["pairs_seen"],
        "sources": rsum,
    }


def _is_frozen(settings: Params) -> bool:
    return set(settings.train.freeze) == {"image", "text"}


def _rsum(pool: Pool, embeddings: Embeddings) -> dict[str, float]:
    return {name: its.result.rsum for name, its in by_source(pool, rank(pool, embeddings, _CHUNK)).items()}


def _embedded(fold: Fold, encoder: Encoder, model: Model) -> tuple[Pool, Embeddings]:
    workspace = Workspace(fold.folder)
    manifest = Manifest.load(workspace.manifest)
    batches = validation_batches(manifest, ShardReader(workspace.shards), encoder, _BATCH)
    pool, (embeddings,) = encode(batches, [model], _BATCH)
    return pool, embeddings


@dataclass(frozen=True)
class _Towers:
    """The towers of a model without their projections, which is what stays the same where both are frozen."""

    encoder: Encoder

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        return self.encoder.transform

    @torch.inference_mode()
    def encode_pixels(self, images: Tensor) -> Tensor:
        """Pixels (n, 3, H, W) to (n, w)."""
        model = self.encoder.model
        features: Tensor = model.image_tower(model.normalise(images))
        return features

    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str], batch_size: int = _BATCH) -> Tensor:
        """Captions to (n, w)."""
        parts = []
        for start in range(0, len(captions), batch_size):
            ids, mask = self.encoder.tokenizer(list(captions[start : start + batch_size]))
            parts.append(self.encoder.model.text_hidden(torch.from_numpy(ids), torch.from_numpy(mask)))
        return torch.cat(parts)


_stored: dict[str, tuple[Pool, Embeddings]] = {}  # what frozen towers make of validation pairs, the same in all folds


_lock = Lock()


@torch.inference_mode()
def score(fold: Fold, image_projection: nn.Module, text_projection: nn.Module) -> dict[str, float]:
    """Return RSUM by source of projections on the frozen towers of the fold's last model.

    Raises `SystemExit` where that model has learned its towers, and no fold's frozen ones were met before.
    """
    splits = Manifest.load(Workspace(fold.folder).manifest).splits
    key = str([(name, info.shards) for name, info in sorted(splits.items()) if name[1] == "valid"])
    with _lock:
        if key not in _stored:
            settings = params_file.load(fold.folder / "params.yaml")
            if not _is_frozen(settings):
                raise SystemExit(
                    f"{fold.folder}: its last model has learned its towers (train.freeze is {settings.train.freeze}); "
                    "run a variant of `frozen` there first"
                )
            encoder = Encoder.load(Workspace(fold.folder).model)
            _stored[key] = _embedded(fold, encoder, _Towers(encoder))
    pool, hidden = _stored[key]
    image, text = l2_normalise(image_projection(hidden.image)), l2_normalise(text_projection(hidden.text))
    return _rsum(pool, Embeddings(image, text))


def _run(command: str, folder: Path) -> None:
    zerovl_to_log(folder, command, {**os.environ, "OMP_NUM_THREADS": "1"})
