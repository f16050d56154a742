"""Karpathy's split files (COCO, Flickr30K, Flickr8k): `dataset*.json` beside the pictures.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerovl.data.raw.fetched_files import FetchedFiles
from zerovl.data.raw.file_names import FileNames, Found, differing_notes
from zerovl.data.raw.layout import SPLITS, Source
from zerovl.data.raw.records import Picture, Reading, Record, caption_error, name_error, shown, whole_number
from zerovl.data.raw.split_names import chosen_names
from zerovl.data.raw.whole_json import whole_json
from zerovl.errors import ZeroVLError
from zerovl.text_format import plural

# Of its libraries, beside tables and in folders of `save_to_disk`.
_HUGGING_FACE = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json")


class Karpathy:
    """The `Layout` of sources with one split file for all of their pictures."""

    name = "karpathy"
    signs = "dataset*.json"
    remote = False
    uses = frozenset({"evaluation_split"})

    def detect(self, folder: Path) -> bool:
        """Return whether there is a split file, or several."""
        return bool(_files(folder))

    def splits(self, source: Source) -> list[str]:
        """Return the splits that the file has pictures for."""
        annotation = _annotation(Path(source.path))
        images = _images(annotation) if annotation else []
        chosen = _chosen(images, source)
        return [split for split in SPLITS if split in chosen]

    def read(self, source: Source, split: str, max_caption_bytes: int, fetched: FetchedFiles) -> Reading:
        """Give the pictures of one split in the file's order; what neither split wants is counted in the notes.

        Raises `ZeroVLError` where there is no annotation, or it is not one.
        """
        folder = Path(source.path)
        path = _annotation(folder)
        if path is None:
            raise ZeroVLError(f"{folder}: no dataset*.json (Karpathy layout); put it there or change the layout")
        images = _images(path)
        chosen = _chosen(images, source)
        wanted = [image for image in images if isinstance(image, dict) and _split(image) in chosen[split]]
        read = frozenset().union(*chosen.values())
        notes = _left_out(images, path, read) if split == source.splits[-1] else []  # once a source
        return Reading(_records(folder, path, wanted, max_caption_bytes, notes), len(wanted), notes)


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("[dD]ataset*.json"))
    return [file for file in found if file.name not in _HUGGING_FACE]


def _annotation(folder: Path) -> Path | None:
    """Return the one `dataset*.json` of a folder; more than one is an error, since they may overlap."""
    files = _files(folder)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ZeroVLError(f"{folder}: several Karpathy files ({names}); keep one a source")
    return files[0] if files else None


def _chosen(images: list[Any], source: Source) -> dict[str, frozenset[str]]:
    """Return by our splits the file's own names for what they take."""
    return chosen_names({_split(image) for image in images if isinstance(image, dict)}, source.evaluated)


def _split(image: dict[str, Any]) -> str:
    """Return the split of an image, in small letters."""
    return str(image.get("split")).strip().lower()


def _left_out(images: list[Any], path: Path, read: frozenset[str]) -> list[str]:
    others = Counter(_split(image) for image in images if isinstance(image, dict) and _split(image) not in read)
    notes = [f"{plural(count, 'image')} of split {name!r} left out" for name, count in sorted(others.items())]
    if strays := sum(not isinstance(image, dict) for image in images):
        notes.append(f"{plural(strays, 'entry', 'entries')} of {path.name} left out: not an image")
    return notes


def _images(path: Path) -> list[Any]:
    content = whole_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ZeroVLError(f"{path}: no list 'images'; expected a Karpathy split file (data/README.md shows one)")
    return images


def _records(
    folder: Path, path: Path, images: list[dict[str, Any]], max_caption_bytes: int, notes: list[str]
) -> Iterator[Record]:
    """Give the pictures; how many files have another name than the split file joins the notes at the end."""
    names = FileNames(folder)
    differing = Counter[str]()
    image_ids: set[int] = set()
    caption_ids: set[int] = set()
    for image in images:
        number = image.get("cocoid", image.get("imgid"))
        image_id = whole_number(number)
        name = "/".join(str(image[part]) for part in ("filepath", "filename") if image.get(part))
        origin = f"{name} ({path.name}: imgid {image.get('imgid')})"
        # The last part by itself too: joined to a folder, an absolute name would win over it.
        error = name_error(name) or name_error(str(image.get("filename")))
        if not isinstance(image.get("filename"), str):
            error = "no filename"
        elif image_id is None:
            error = f"imgid {number!r} is not a whole number"
        elif image_id in image_ids:
            error = f"image id {image_id} was used before"
        sentences = image.get("sentences")
        good: list[tuple[int, str]] = []
        broken: list[Record] = []
        for sentence in sentences if isinstance(sentences, list) else []:
            caption_id, text, problem = _sentence(sentence, caption_ids, max_caption_bytes)
            if problem is None and caption_id is not None:
                good.append((caption_id, text.strip()))
                caption_ids.add(caption_id)
            else:
                known = () if caption_id is None else (caption_id,)
                broken.append(Record(origin, image_id, shown(text), known, error=problem))
        if error is None and image_id is not None:
            image_ids.add(image_id)
        if error is None and not good and not broken:
            error = "no caption"
        if error or good:
            found = Found("", problem=error) if error else _find(names, image.get("filepath"), image["filename"])
            differing[found.differs] += 1
            yield Record(
                origin,
                image_id,
                tuple(text for _, text in good),
                tuple(number for number, _ in good),
                None if found.problem else Picture(found.path),
                found.problem,
            )
        yield from broken
    notes += differing_notes(differing)


def _sentence(sentence: object, seen: set[int], max_bytes: int) -> tuple[int | None, str, str | None]:
    """(caption_id, text, reason it is refused or None)."""
    if not isinstance(sentence, dict) or not isinstance(sentence.get("raw"), str):
        return None, "", "sentence without 'raw'"
    text = sentence["raw"]
    caption_id = whole_number(sentence.get("sentid"))
    if caption_id is None:
        return None, text, f"sentid {sentence.get('sentid')!r} is not a whole number"
    if caption_id in seen:
        return caption_id, text, f"caption_id {caption_id} was used before"
    return caption_id, text, caption_error(text, max_bytes)


def _find(names: FileNames, filepath: object, filename: str) -> Found:
    """The first place that has the picture; the first place at all if none has."""
    below = [f"{filepath}/{filename}"] if isinstance(filepath, str) and filepath else []
    places = [names.find(name) for name in [*below, *(f"images/{name}" for name in [*below, filename]), filename]]
    # os.path.exists, unlike Path.exists, takes names that are too long or not Unicode for missing.
    return next((place for place in places if place.problem or os.path.exists(place.path)), places[0])
