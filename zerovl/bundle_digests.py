"""Digests of the files that a model is made of, kept beside them, so that an edited or damaged one is found by name.

    digests.json    {"config.json": SHA256, "model.safetensors": SHA256, ...}

It is written with the model, and says nothing of files that are put beside it later. A model of before it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.files import read_json, sha256_file, write_json

FILE = "digests.json"
_SHOWN = 12  # hexadecimal digits of a digest in a message


def write(folder: Path, files: Mapping[str, Path]) -> None:
    """Write the digests of the files of a model, by their names in `folder`; one may still lie elsewhere."""
    write_json(folder / FILE, {name: sha256_file(path) for name, path in sorted(files.items())})


def check(folder: Path) -> None:
    """Raise `ZeroVLError` naming each file that is not what it was when the model was written; reads every byte."""
    if not (folder / FILE).is_file():
        return
    digests = read_json(folder / FILE)
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise ZeroVLError(f"{folder / FILE}: not a mapping of files to digests; fetch the model again")
    problems = [problem for name, digest in digests.items() if (problem := _problem(folder / name, digest))]
    if problems:
        listed = "\n  ".join(problems)
        raise ZeroVLError(
            f"{folder}: edited or damaged since the model was written:\n  {listed}\n"
            f"fetch the model again; where the change is meant, remove {folder / FILE}"
        )


def _problem(path: Path, digest: str) -> str:
    """What is wrong with a file, as a line; empty where nothing is."""
    try:
        found = sha256_file(path)
    except FileNotFoundError:
        return f"{path.name}: missing"
    except OSError as error:
        return f"{path.name}: cannot be read ({error.strerror})"
    return "" if found == digest else f"{path.name}: expected sha256 {digest[:_SHOWN]}..., found {found[:_SHOWN]}..."
