"""What a release consists of, and the digests that name it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zerovl import bundle_digests, bundle_files
from zerovl.errors import ZeroVLError
from zerovl.files import sha256_file, sha256_json

WEIGHTS = bundle_files.WEIGHTS
CONFIG = bundle_files.CONFIG
METRICS = "metrics.json"
PROVENANCE = "provenance.json"
MODEL_CARD = bundle_files.MODEL_CARD
QUERIES = "queries.parquet"  # ranks by query, for paired comparisons with later candidates
ITEMS = "items.parquet"  # what metrics beside retrieval count of each item, for the same
SAMPLE = "sample"  # folder: validation pairs with their embeddings, to check the release when an alias moves
SAMPLE_PAIRS = "pairs.tar"
SAMPLE_EMBEDDINGS = "embeddings.safetensors"
SAMPLE_FILES = (f"{SAMPLE}/{SAMPLE_PAIRS}", f"{SAMPLE}/{SAMPLE_EMBEDDINGS}")

_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt")
# Written about the model, with dates, machines and roundings in them; the same model stays the same without them.
# Digests of its files say nothing new of it, and a model of before there were any stays the same with them.
_ABOUT = (PROVENANCE, MODEL_CARD, QUERIES, ITEMS, *SAMPLE_FILES, bundle_digests.FILE)


@dataclass(frozen=True)
class FileInfo:
    """What a version says of one file: its content and its length."""

    sha256: str
    size: int  # bytes


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has the config and the weights of a model."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def collect(folder: Path) -> dict[str, Path]:
    """Return the files of a model's folder by their names in the release (POSIX paths), without hidden ones.

    Raises:
        ZeroVLError: weights or config are missing or empty, or a file may hold a pickle.
    """
    if not folder.is_dir():
        raise ZeroVLError(f"{folder}: no such folder; run the stage that makes it first (`dvc repro train`)")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    files = {name: path for name, path in files.items() if not any(p.startswith(".") for p in name.split("/"))}
    for name in (WEIGHTS, CONFIG):
        if name not in files or files[name].stat().st_size == 0:
            raise ZeroVLError(f"{folder / name}: missing or empty, so the folder is not a bundle; train again")
    check_names(files, str(folder))
    return files


def check_names(names: Mapping[str, object], origin: str) -> None:
    """Refuse names that lead out of a folder, and files that run code when they are loaded."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or "\\" in name or not path.parts or any(part.startswith(".") for part in path.parts):
            raise ZeroVLError(f"{origin}: file name {name!r} is not allowed in a release; rename it")
        if path.suffix.lower() in _PICKLES:
            raise ZeroVLError(
                f"{origin}: {name} may hold a pickle, which runs code when loaded; save the weights as safetensors "
                "and remove it"
            )


def describe_file(source: Path | bytes) -> FileInfo:
    """Return digest and length of a file or of bytes."""
    if isinstance(source, bytes):
        return FileInfo(hashlib.sha256(source).hexdigest(), len(source))
    return FileInfo(sha256_file(source), source.stat().st_size)


def as_bytes(source: Path | bytes) -> bytes:
    """Return the content of a file, or bytes as they are."""
    return source if isinstance(source, bytes) else source.read_bytes()


def identity(files: Mapping[str, FileInfo]) -> str:
    """Return one digest over the model's own files and its metrics; what is written about the model does not count."""
    return sha256_json({name: info.sha256 for name, info in files.items() if name not in _ABOUT})
