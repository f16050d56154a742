"""The pictures in a release's sample, and the sample without some of them; no model is loaded for it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zerovl.errors import ZeroVLError
from zerovl.release.sample_pairs import member_bytes


@dataclass(frozen=True)
class SamplePicture:
    """A picture of a sample."""

    row: int  # of the sample's embeddings
    key: str  # as the manifest has it
    sha256: str  # of its bytes as they are stored
    members: tuple[str, str]  # of the tar: the picture, and its JSON
    captions: tuple[str, ...]


def pictures(pairs: bytes, origin: str) -> list[SamplePicture]:
    """Return the pictures of a sample's tar in the order of its embeddings; raises `ZeroVLError` for a damaged one."""
    try:
        with tarfile.open(fileobj=io.BytesIO(pairs)) as tar:
            content = {member.name: member_bytes(tar, member) for member in tar if member.isfile()}
        found = []
        for row, member in enumerate(sorted(name for name in content if name.endswith(".json"))):
            picture, record = f"{member.removesuffix('.json')}.jpg", json.loads(content[member])
            digest, captions = hashlib.sha256(content[picture]).hexdigest(), tuple(map(str, record["captions"]))
            found.append(SamplePicture(row, str(record["key"]), digest, (picture, member), captions))
    except (tarfile.TarError, ValueError, LookupError, TypeError) as error:
        raise ZeroVLError(f"{origin}: no readable sample ({error!r})") from None
    return found


def without(pairs: bytes, embeddings: bytes, gone: Collection[SamplePicture], origin: str) -> tuple[bytes, bytes]:
    """Return tar and embeddings (n, D) of a sample without some of its pictures, each with its captions and its row."""
    left_out = {name for picture in gone for name in picture.members}
    written = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(pairs)) as tar,
        tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as smaller,
    ):
        for member in tar:
            if member.isfile() and member.name not in left_out:
                smaller.addfile(member, io.BytesIO(member_bytes(tar, member)))
    try:
        tensors = load(embeddings)
    except SafetensorError as error:
        raise ZeroVLError(f"{origin}: no readable embeddings ({error!r})") from None
    rows = [picture.row for picture in gone]
    kept = {name: np.ascontiguousarray(np.delete(values, rows, axis=0)) for name, values in tensors.items()}
    return written.getvalue(), save(kept)
