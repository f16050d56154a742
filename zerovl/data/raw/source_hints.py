"""What a folder in no known layout may be after all, and what makes a source of it, in a line."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from zerovl.data.raw.layouts import LAYOUTS
from zerovl.data.raw.records import PICTURES, is_debris
from zerovl.data.raw.split_names import NAMES, split_named
from zerovl.data.raw.table_columns import choose_columns
from zerovl.data.raw.table_files import KINDS, CsvTable, is_table, open_table
from zerovl.data.raw.tar_splits import tars_below
from zerovl.data.raw.unread_files import unpacked_name, unread_line
from zerovl.errors import ZeroVLError

_LOOKED_AT = 20  # files of a kind: a folder may have a million
_HEAD = 1 << 20  # bytes of a JSON file's begin and end that are looked at
# A line of Flickr8k.token.txt.
_OF_FLICKR = re.compile(rf"(?P<picture>\S.*\.({'|'.join(PICTURES)}))#\d+\t", re.IGNORECASE)


def hint_of(folder: Path) -> str:
    """Return the first that can be said, after a semicolon; "" where the folder has nothing that is known."""
    return next(filter(None, (hint(folder) for hint in _HINTS)), "")


def _loose_pairs_hint(folder: Path) -> str:
    """Return how pictures with a `.txt` beside each become a source."""
    places = [place for place in (folder, *_sub_folders(folder)) if _has_loose_pairs(place)]
    if len(places) > 1 and folder not in places:  # as img2dataset's output_format=files has them
        return (
            f"; pictures in {places[0]} and {len(places) - 1} more have a .txt beside them: make tars of them, "
            f'for d in {shlex.quote(str(folder))}/*/; do tar --sort=name -cf "${{d%/}}.tar" -C "$d" .; done'
        )
    if not places:
        return ""
    return (
        f"; pictures in {places[0]} have a .txt beside them: make a tar of them, "
        f"tar --sort=name -cf {shlex.quote(str(folder / 'pairs.tar'))} -C {shlex.quote(str(places[0]))} ."
    )


def _has_loose_pairs(place: Path) -> bool:
    texts = (path for path in place.glob("*.txt") if not is_debris(path.name))
    return any(text.with_suffix(f".{ending}").is_file() for text in texts for ending in PICTURES)


def _json_hint(folder: Path) -> str:
    """Return what a `.json` is by its first bytes: lines, a list, or a file of a known layout under another name."""
    for path in islice(_files(folder, ".json"), _LOOKED_AT):
        begin, end = _ends(path)
        if _is_json_lines(begin):
            return f"; {path.name} has JSON lines: rename it to {path.stem}.jsonl"
        if keys := _keys_of_a_list(begin):
            script = "import json, sys; [print(json.dumps(row)) for row in json.load(open(sys.argv[1]))]"
            return (
                f"; {path.name} is a list of mappings ({', '.join(keys)[:100]}): write one a line, "
                f"python -c {shlex.quote(script)} {shlex.quote(path.name)} > {_split_in(path.name) or 'pairs'}.jsonl"
            )
        if re.search(r'"images"\s*:\s*\[', begin):
            if '"sentences"' in begin:
                return f"; {path.name} is a split file as Karpathy's: rename it to dataset_{path.name}"
            if '"file_name"' in begin and '"caption"' in end:
                return f"; {path.name} has captions as COCO: rename it to captions_{_split_in(path.name) or 'all'}.json"
    return ""


def _ends(path: Path) -> tuple[str, str]:
    """Return the first and the last of a file, as far as they are text."""
    try:
        with open(path, "rb") as file:
            begin = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            return begin.decode("utf-8-sig", "replace"), file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return "", ""


def _is_json_lines(begin: str) -> bool:
    first, end, rest = begin.partition("\n")
    try:
        return bool(end) and isinstance(json.loads(first), dict) and rest.startswith("{")
    except (ValueError, RecursionError):
        return False


def _keys_of_a_list(begin: str) -> list[str]:
    """Return the keys of the first mapping of a list; none where it is no such list."""
    if not begin.lstrip().startswith("["):
        return []
    try:
        first, _ = json.JSONDecoder().raw_decode(begin.lstrip()[1:].lstrip())
    except (ValueError, RecursionError):
        return []
    return [str(key) for key in first] if isinstance(first, dict) else []


def _split_in(name: str) -> str:
    """Return the split that a part of a name says: `coco_karpathy_val.json`; "" where none does."""
    return next((part for part in re.findall(r"[a-z]+", name.lower()) if part in NAMES), "")


def _inner_hint(folder: Path) -> str:
    """Return the sub-folder that is a source."""
    for path in _sub_folders(folder):
        if layout := _inner_layout(path):
            article = "an" if layout == "imagefolder" else "a source in the layout"
            return (
                f"; its {path.name}/ is {article} {layout}: name that folder in data.sources as the path of the source"
            )
    return ""


def _inner_layout(folder: Path) -> str:
    """Return the layout of a sub-folder; "" for none and for tars, of which another hint speaks."""
    found = (name for name, layout in LAYOUTS.items() if name != "webdataset" and layout.detect(folder))
    return next(found, "")


def _table_hint(folder: Path) -> str:
    """Return how a table that is not known by its name becomes a source."""
    path = min((path for path in folder.iterdir() if is_table(path) and not is_debris(path.name)), default=None)
    if path is None:
        return ""
    pictures = _pictures_elsewhere(folder, _first_picture(path))
    also = f", table: {path.name} and pictures: {pictures}" if pictures else f" and table: {path.name}"
    return f"; it has a table, {path.name}: name the source in data.sources with layout: table{also}"


def _text_hint(folder: Path) -> str:
    """Return how a `.txt` with a row a caption becomes a table: Kaggle's of Flickr8k, and the original one."""
    for path in islice(_files(folder, ".txt"), _LOOKED_AT):
        if line := _OF_FLICKR.match(_ends(path)[0]):
            picture = line["picture"]
            command = f"sed -e 's/#[0-9]*\\t/\\t/' -e '1i image\\tcaption' {shlex.quote(path.name)} > pairs.tsv"
            said = f"; {path.name} has a picture and a caption a line: make a table of it, {command}"
        elif picture := _first_picture(path):
            said = f"; {path.name} is a table: rename it to pairs.csv"
        else:
            continue
        pictures = _pictures_elsewhere(folder, picture)
        return f"{said}, and name the source in data.sources with pictures: {pictures}" if pictures else said
    return ""


def _first_picture(path: Path) -> str:
    """Return the name of the first picture of a table, whatever its ending; "" where it has none, or no captions."""
    try:
        table = open_table(path) if is_table(path) else CsvTable(path)
        row = next(table.rows([choose_columns(table, {}).image]), None)
    except (ZeroVLError, OSError):
        return ""
    return row.values[0] if row and row.values and isinstance(row.values[0], str) else ""


def _pictures_elsewhere(folder: Path, name: str) -> str:
    """Return the sub-folder that a picture lies in; "" where it lies in the folder itself, or nowhere."""
    if not name or os.path.lexists(folder / name):
        return ""
    return next((place.name for place in _sub_folders(folder) if os.path.lexists(place / name)), "")


def _tar_hint(folder: Path) -> str:
    """Return where there are tars that no split has."""
    inside = (Path(path).parent.relative_to(folder) for path in tars_below(str(folder)))
    first = min((its for its in inside if not any(map(is_debris, its.parts))), default=None)
    if first is None:
        return ""
    return (
        f"; it has tars in {first}/, which are read where that folder is named in data.sources, or is train/ or valid/"
    )


def _apart_hint(folder: Path) -> str:
    """Return how pictures whose captions lie in a folder of their own, a `.txt` each, become a table."""
    places = _sub_folders(folder)
    for texts in places:
        stems = [path.stem for path in islice(_files(texts, ".txt"), _LOOKED_AT)]
        for place in places:
            if any((place / f"{stem}.{ending}").is_file() for stem in stems for ending in PICTURES):
                caption = f"(lambda t: t.read_text() if t.exists() else '')(d / {texts.name!r} / (p.stem + '.txt'))"
                rows = f"[p.relative_to(d), {caption}] for p in sorted((d / {place.name!r}).glob('*.*'))"
                return (
                    f"; the captions of the pictures in {place.name}/ are in {texts.name}/: make a table of both, "
                    f"{_table_command(folder, ['image', 'caption'], rows)}"
                )
    return ""


def _classes_hint(folder: Path) -> str:
    """Return how pictures in a folder a class, which nothing else describes, become a table or a set of classes."""
    splits = [place for place in _sub_folders(folder) if split_named(place.name)]
    places = [inner for place in splits for inner in _sub_folders(place)] if splits else _sub_folders(folder)
    classes = [place for place in places if _has_pictures(place)]
    if len(classes) < 2:
        return ""
    pattern, split, header = ("*/*/*.*", ", p.relative_to(d).parts[0]", ["split"]) if splits else ("*/*.*", "", [])
    name = "'a photo of a ' + p.parent.name.replace('_', ' ')"
    rows = f"[p.relative_to(d), {name}{split}] for p in sorted(d.glob({pattern!r}))"
    return (
        f"; pictures in {classes[0].relative_to(folder)}/ and {len(classes) - 1} more have no captions: name a set of "
        "classes in evaluate.classification (docs/evaluation.md) or make captions of the folders' names, "
        f"{_table_command(folder, ['image', 'caption', *header], rows)}"
    )


def _has_pictures(place: Path) -> bool:
    return any(path.suffix.lower()[1:] in PICTURES for path in islice(_files(place, ""), _LOOKED_AT))


def _table_command(folder: Path, header: list[str], rows: str) -> str:
    """Return what writes a table: `rows` makes them, of the folder `d` and each file `p` of it."""
    script = (
        "import csv, pathlib, sys; d = pathlib.Path(sys.argv[1]); w = csv.writer(open(d / 'pairs.csv', 'w')); "
        f"w.writerow({header}); w.writerows({rows} if p.suffix.lower()[1:] in {PICTURES})"
    )
    return shlex.join(["python", "-c", script, str(folder)])


def _arrow_hint(folder: Path) -> str:
    """Return how what Hugging Face's `save_to_disk` has written becomes a table."""
    place = next((place for place in (*_sub_folders(folder), folder) if any(place.glob("*.arrow"))), None)
    if place is None:
        return ""
    table = folder / f"{_split_in(place.name) or 'pairs'}.parquet"
    script = "import sys, datasets; datasets.load_from_disk(sys.argv[1]).to_parquet(sys.argv[2])"
    return (
        f"; {place} was written by save_to_disk of datasets: make a table of it, "
        f"{shlex.join(['python', '-c', script, str(place), str(table)])}"
    )


def _packed_hint(folder: Path) -> str:
    """Return which compressed tars, tables and split files there are, and other archives."""
    endings = (*KINDS, ".tar", ".json")
    names = [path.name for path in _files(folder, "")]
    packed = [name for name in names if unpacked_name(name).lower().endswith(endings) or name.lower().endswith(".zip")]
    return f"; {unread_line(packed, ', '.join(endings))}" if packed else ""


def _files(folder: Path, ending: str) -> Iterator[Path]:
    """Give the files of a folder whose names end so, in the order of their names."""
    return (
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(ending) and not is_debris(path.name) and path.is_file()
    )


def _sub_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that can be read."""
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not is_debris(path.name))
    return [path for path in found if os.access(path, os.R_OK | os.X_OK)]


_HINTS = (
    *(_inner_hint, _loose_pairs_hint, _json_hint, _table_hint),
    *(_text_hint, _tar_hint, _arrow_hint, _packed_hint),
    *(_apart_hint, _classes_hint),
)
