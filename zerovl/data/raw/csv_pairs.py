"""The original ZeroVL layout: `{train,valid}_anno.csv` with one row a caption, pictures in `{train,valid}/`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zerovl.data.raw.records import Picture, Reading, Record, caption_error, name_error, shown, whole_number
from zerovl.errors import ZeroVLError

COLUMNS = ("image", "image_id", "caption", "caption_id")


@dataclass(slots=True)
class _Sample:
    image: str
    image_id: int
    origin: str
    error: str | None
    captions: list[str] = field(default_factory=list)
    caption_ids: list[int] = field(default_factory=list)


def annotation(folder: Path, split: str) -> Path:
    return folder / f"{split}_anno.csv"


def read(folder: Path, split: str, max_caption_bytes: int) -> Reading:
    """Group the rows of one annotation file by image_id, in the order of their first row.

    Raises `ZeroVLError` where the file as a whole cannot be read (columns, encoding); a broken row
    is a quarantined record.
    """
    path = annotation(folder, split)
    entries: list[_Sample | Record] = []
    samples: dict[int, _Sample] = {}
    caption_ids: set[int] = set()
    for origin, row in _rows(path):
        if isinstance(row, str):
            entries.append(Record(origin, error=row))
            continue
        image, image_id_text, caption, caption_id_text = row
        image_id, caption_id = whole_number(image_id_text), whole_number(caption_id_text)
        if image_id is None or caption_id is None:
            column, value = ("image_id", image_id_text) if image_id is None else ("caption_id", caption_id_text)
            reason = f"{column} {value[:50]!r} is not a whole number"
            entries.append(Record(origin, image_id, shown(caption), error=reason))
            continue
        sample = samples.get(image_id)
        if sample is None:
            sample = samples[image_id] = _Sample(image, image_id, f"{split}/{image} ({origin})", name_error(image))
            entries.append(sample)
        problem = caption_error(caption, max_caption_bytes)
        if image != sample.image:
            problem = f"image_id {image_id} already belongs to {sample.image!r}, here it has {image[:200]!r}"
        elif caption_id in caption_ids:
            problem = f"caption_id {caption_id} was used before"
        if problem:
            entries.append(Record(origin, image_id, shown(caption), (caption_id,), error=problem))
            continue
        caption_ids.add(caption_id)
        sample.captions.append(caption.strip())
        sample.caption_ids.append(caption_id)
    return Reading(_records(entries, folder / split), len(entries))


def _records(entries: list[_Sample | Record], pictures: Path) -> Iterator[Record]:
    for entry in entries:
        if isinstance(entry, Record):
            yield entry
        elif entry.captions:  # else each of its captions has a row of its own that says why
            yield Record(
                entry.origin,
                entry.image_id,
                tuple(entry.captions),
                tuple(entry.caption_ids),
                None if entry.error else Picture(str(pictures / entry.image)),
                entry.error,
            )


def _rows(path: Path) -> Iterator[tuple[str, tuple[str, str, str, str] | str]]:
    """(origin, values of COLUMNS), or (origin, reason) where a row has too few cells."""
    csv.field_size_limit(1 << 30)  # a caption of 1 MB is a broken row, not the end of the file
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                raise ZeroVLError(
                    f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'none'}; "
                    f"expected {', '.join(COLUMNS)} in the first line"
                )
            image, image_id, caption, caption_id = (header.index(name) for name in COLUMNS)
            first = lines.line_num + 1
            for cells in lines:
                origin = f"{path.name}:{first}" + (f"-{lines.line_num}" if lines.line_num > first else "")
                first = lines.line_num + 1
                if not cells:
                    continue
                if len(cells) < len(header):
                    yield origin, f"row has {len(cells)} cells, the header has {len(header)}"
                    continue
                yield origin, (cells[image], cells[image_id], cells[caption], cells[caption_id])
    except UnicodeDecodeError:
        raise ZeroVLError(_encoding_message(path)) from None
    except csv.Error as error:
        raise ZeroVLError(f"{path}: line {lines.line_num}: not valid CSV ({error}); write it again as CSV") from None
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from None


def _encoding_message(path: Path) -> str:
    """Line and byte of the first place that is not UTF-8; the text decoder only knows its own buffer."""
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                value = line[error.start]
                return (
                    f"{path}: line {number}, byte {start + error.start} (0x{value:02x}): not UTF-8; "
                    f"save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > fixed.csv"
                )
            start += len(line)
    return f"{path}: not UTF-8; save it as UTF-8"
