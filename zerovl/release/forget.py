"""A picture that must go: out of the sample of every version of a model, and of those that are registered later.

    NAME/forgotten/<sha256>.json    who wanted it gone, when, why and by which key; the digest is of the picture's bytes

A version's own record stays. A note says which file was withdrawn and what stands in its place, so the version
verifies, and is scored by what is left. The record of the picture is written before the versions are looked through,
and whoever registers looks at these records after the version is written: none is missed between the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.registry import blobs, collection, keys, notes
from zerovl.registry.collection import Garbage
from zerovl.registry.records import Replacement, Version, now
from zerovl.registry.registry import Registry
from zerovl.registry.release_files import MODEL_CARD, SAMPLE_FILES, as_bytes, describe_file
from zerovl.registry.stores.base import MissingKeyError
from zerovl.release.sample_pictures import SamplePicture, pictures, without
from zerovl.release.usage import without_captions
from zerovl.text_format import plural

_SHOW_PICTURES = (*SAMPLE_FILES, MODEL_CARD)  # the card has a caption of the sample
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Forgotten:
    """What forgetting pictures came to."""

    pictures: tuple[str, ...]  # sha256
    versions: tuple[int, ...]  # whose sample is smaller now
    removed: tuple[Garbage, ...]  # from the store


def forget_digest(registry: Registry, name: str, sha256: str, why: str, by: str) -> Forgotten:
    """Remove the picture with this sha256 of its stored bytes; later versions come without it, too."""
    if not _DIGEST.fullmatch(sha256):
        raise ZeroVLError(f"--sha256 {sha256!r}: expected 64 hexadecimal digits, as `sha256sum` prints them")
    return _forget(registry, name, {sha256}, why, by)


def forget_key(registry: Registry, name: str, key: str, why: str, by: str) -> Forgotten:
    """Remove the pictures that have this key in the manifest, and those that were named by it before.

    Raises:
        ZeroVLError: no sample has such a picture, or a version cannot be looked through, as in `forget_digest`.
    """
    found, failures = _named_before(registry, name, key), []
    for version in registry.versions(name):
        try:
            found |= {picture.sha256 for picture in _look(registry, version)[1] if picture.key == key}
        except ZeroVLError as error:  # a damaged version must not keep the picture in the others
            failures.append(_of(version, error))
    if not found:
        text = (
            f"--key {key}: no sample of {name} has such a picture (`key` in the JSON files of sample/pairs.tar); use "
            "--sha256 for one that the data alone have"
        )
        raise ZeroVLError("\n".join([text, *failures]))
    return _forget(registry, name, found, why, by, key)


def _of(version: Version, error: ZeroVLError) -> str:
    """Return the message of an error with the version that it is of, which most name themselves."""
    text, named = str(error), f"{version.reference}: "
    return text if text.startswith(named) else f"{named}{text}"


def without_forgotten(registry: Registry, name: str, files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return the files of a release that is about to be published, its sample without the pictures that must go."""
    forgotten = digests(registry, name)
    if not forgotten or not set(SAMPLE_FILES) <= files.keys():
        return dict(files)
    shown = {path: as_bytes(files[path]) for path in _SHOW_PICTURES if path in files}
    gone = [picture for picture in pictures(shown[SAMPLE_FILES[0]], SAMPLE_FILES[0]) if picture.sha256 in forgotten]
    if not gone:
        return dict(files)
    logger().warning(f"the sample goes without {plural(len(gone), 'picture')} that must not be in releases of {name}")
    return {**files, **_without(shown, gone, SAMPLE_FILES[1])}


def withdraw(registry: Registry, version: Version, by: str) -> bool:
    """Take all pictures that must go from the sample of a version; returns whether there was one."""
    changed = False
    # Again until there is none: someone else may withdraw another picture from the same sample meanwhile.
    while forgotten := digests(registry, version.name):
        now_there, found = _look(registry, version)
        gone = [picture for picture in found if picture.sha256 in forgotten]
        if not gone:
            break
        try:
            _replace(registry, now_there, gone, by, "; ".join(sorted({forgotten[each.sha256] for each in gone})))
        except MissingKeyError:
            _require_changed(registry, now_there)
        else:
            changed = True
    return changed


def digests(registry: Registry, name: str) -> dict[str, str]:
    """Return the sha256 of all pictures that must not be in releases of a model, each with the reason."""
    return {digest: record["why"] for digest, record in _records(registry, name).items()}


def _named_before(registry: Registry, name: str, key: str) -> set[str]:
    """The sha256 of pictures that were named by a key; so what was cut short is done by the same command again."""
    return {digest for digest, record in _records(registry, name).items() if record.get("key") == key}


def _records(registry: Registry, name: str) -> dict[str, dict[str, Any]]:
    found = {}
    for key in registry.store.keys(keys.forgotten(name)):
        try:
            record = json.loads(registry.store.read(key))
            found[key.rpartition("/")[2].removesuffix(".json")] = {**record, "why": str(record["why"])}
        except (ValueError, KeyError, TypeError) as error:
            raise ZeroVLError(f"{registry.store.describe()}: {key}: not a record of this registry ({error})") from None
    return found


def _forget(registry: Registry, name: str, wanted: set[str], why: str, by: str, key: str = "") -> Forgotten:
    if not why.strip():
        raise ZeroVLError("a picture is removed for a reason, which is kept: --why TEXT")
    for digest in wanted:
        record = {"sha256": digest, "when": now(), "by": by, "why": why, **({"key": key} if key else {})}
        registry.store.create(keys.forgotten(name, digest), (json.dumps(record, indent=2) + "\n").encode())
    changed, failures = [], []
    for version in registry.versions(name):
        try:
            if withdraw(registry, version, by):
                changed.append(version.number)
        except ZeroVLError as error:  # a damaged version must not keep the picture in the others
            failures.append(_of(version, error))
    removed = collection.collect(registry, name, collection.WITHDRAWN_ALONE, by)
    if failures:
        raise ZeroVLError("\n".join((f"not all versions of {name} could be looked through:", *failures)))
    return Forgotten(tuple(sorted(wanted)), tuple(changed), tuple(removed))


def _look(registry: Registry, version: Version) -> tuple[Version, list[SamplePicture]]:
    """A version as it is now with the pictures of its sample; none where it has none, or its files were removed."""
    while True:
        version = registry.version(version.name, version.number)
        if not set(SAMPLE_FILES) <= version.files.keys():
            return version, []
        try:
            pairs = _stored(registry, version, SAMPLE_FILES[0])
        except MissingKeyError:
            if registry.version(version.name, version.number).files != version.files:
                continue  # someone withdrew it while it was looked for
            if notes.state(registry.notes_on(version)).retired:
                return version, []  # removed, perhaps by a run that was killed before it said so
            raise _missing(version) from None
        else:
            return version, pictures(pairs, f"{version.reference}: {SAMPLE_FILES[0]}")


def _require_changed(registry: Registry, version: Version) -> None:
    """Raise `ZeroVLError` for a file that is missing, unless someone withdrew it while it was looked for."""
    if registry.version(version.name, version.number).files == version.files:
        raise _missing(version)


def _missing(version: Version) -> ZeroVLError:
    return ZeroVLError(f"a file of its sample is missing; `zerovl registry verify {version.reference}` says which")


def _replace(registry: Registry, version: Version, gone: list[SamplePicture], by: str, why: str) -> None:
    shown = {path: _stored(registry, version, path) for path in _SHOW_PICTURES if path in version.files}
    smaller = _without(shown, gone, f"{version.reference}: {SAMPLE_FILES[1]}")
    sources: dict[str, Path | bytes] = {path: data for path, data in smaller.items() if data != shown[path]}
    described = {path: describe_file(source) for path, source in sources.items()}
    before = version.files
    replaced = {
        path: Replacement(before[path].sha256, before[path].size, info.sha256, info.size)
        for path, info in described.items()
    }
    blobs.keep(registry.store, version.name, described, sources)
    notes.add(registry.store, version, "withdraw", by, f"{plural(len(gone), 'picture')}: {why}", replaced)
    blobs.keep(registry.store, version.name, described, sources)


def _without(shown: Mapping[str, bytes], gone: list[SamplePicture], origin: str) -> dict[str, bytes]:
    """Return the files of a release that show pictures without some of them; `origin` names the embeddings."""
    pairs, embeddings = (shown[path] for path in SAMPLE_FILES)
    found = dict(zip(SAMPLE_FILES, without(pairs, embeddings, gone, origin), strict=True))
    if MODEL_CARD in shown:
        captions = {caption for picture in gone for caption in picture.captions}
        found[MODEL_CARD] = without_captions(shown[MODEL_CARD], captions)
    return found


def _stored(registry: Registry, version: Version, path: str) -> bytes:
    return blobs.read(registry.store, version.name, version.files[path].sha256)
