"""Sets of pictures with classes: a folder a class, a CSV, or tars in CLIP_benchmark's layout.

Only names, labels and places are read here; pictures are read when they are encoded.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from zerovl.data.raw.file_names import FileNames
from zerovl.data.raw.records import PICTURES, Picture, is_debris, name_error
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.tars import read_tars
from zerovl.evaluation.classification.templates import place_error
from zerovl.params import ClassificationParams

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
SUFFIXES = frozenset(f".{kind}" for kind in PICTURES)
CSV_COLUMNS = ("image", "class")
FEWEST = 2  # classes
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture, what it is called in messages, and the number of its class."""

    name: str
    picture: Picture
    label: int


@dataclass(frozen=True)
class LabelledSet:
    """The classes of a set by their names, and its pictures in a fixed order."""

    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]
    templates: tuple[str, ...] = ()  # that it came with
    training: tuple[LabelledPicture, ...] = ()  # where it has a training split of its own


def read_set(its: ClassificationParams) -> LabelledSet:
    """List a set.

    Raises:
        ZeroVLError: a file or folder is missing or cannot be read, a class is unknown, none has a picture, or names
            and classes are not equally many.
    """
    given = read_names(Path(its.classnames)) if its.classnames else ()
    if its.folder:
        return _of_folder(Path(its.folder), given)
    return _of_csv(Path(its.csv), given) if its.csv else _of_shards(Path(its.shards), given)


def place_of(its: ClassificationParams) -> str:
    """Return where a set lies, as it was given."""
    return its.folder or its.csv or its.shards


def read_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a file of names, stripped; raises `ZeroVLError` naming what is not one name a line."""
    lines = _lines(path, "name")
    columns = {line.count(_SEPARATORS.get(path.suffix.lower(), "\0")) + 1 for line in lines}
    if len(columns) == 1 and columns != {1}:  # names may have commas, but not in each line as many
        raise ZeroVLError(
            f"{path}: is a table of {columns.pop()} columns; write the names alone, one a line and without a header"
        )
    if len(lines) == 1 and "," in lines[0]:
        raise ZeroVLError(f"{path}: has one line, with commas between names; write one name a line")
    empty = [number for number, line in enumerate(lines, 1) if not line]
    if empty or not lines:
        raise ZeroVLError(f"{path}: line {(empty or [1])[0]} is empty; write one name a line, in the order of classes")
    return tuple(lines)


def read_templates(path: Path) -> tuple[str, ...]:
    """Return the templates of a file, a line each, without empty lines; raises `ZeroVLError` where there is none."""
    templates = tuple(filter(None, _lines(path, "template")))
    if not templates:
        raise ZeroVLError(f"{path}: has no template; write one a line, as: a photo of a {{}}.")
    return templates


def _lines(path: Path, what: str) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise ZeroVLError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); give a file with one {what} a line") from None


def _of_folder(folder: Path, given: Sequence[str]) -> LabelledSet:
    """Sub-folders in the order of their names; pictures of a class may lie in folders of their own."""
    if not folder.is_dir():
        raise ZeroVLError(f"{folder}: no such folder; give one whose sub-folders are the classes")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not is_debris(path.name))
    in_file = folder / CLASS_NAMES
    names = tuple(given) or (read_names(in_file) if in_file.is_file() else ())
    if names and len(names) != len(folders):
        raise ZeroVLError(
            f"{folder}: {len(folders)} folders and {len(names)} names of classes; give one name a folder, in the order "
            f"of {', '.join(path.name for path in folders[:3])}"
        )
    pictures = [
        LabelledPicture(str(path.relative_to(folder)), Picture(str(path)), label)
        for label, its_folder in enumerate(folders)
        for path in sorted(its_folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(map(is_debris, path.relative_to(its_folder).parts))
        and path.is_file()
    ]
    classes = names or tuple(path.name.replace("_", " ").strip() for path in folders)
    return _checked(str(folder), LabelledSet(classes, tuple(pictures)))


def _of_csv(path: Path, given: Sequence[str]) -> LabelledSet:
    """Rows of image and class, pictures relative to the file's folder; classes as named, else sorted."""
    rows = _read_csv(path)
    if len(set(given)) != len(given):
        twice = next(name for number, name in enumerate(given) if name in given[:number])
        raise ZeroVLError(f"{path}: the names of its classes have {twice!r} twice; keep one of them")
    classes = tuple(given) or tuple(sorted({name for _, _, name in rows}))
    label = {name: number for number, name in enumerate(classes)}
    files = FileNames(path.parent)
    pictures = []
    for line, image, name in rows:
        if name not in label:
            raise ZeroVLError(
                f"{path}, line {line}: class {name!r} is not one of the {len(classes)} names; correct it or add it"
            )
        found = files.find(image)
        if found.problem:
            raise ZeroVLError(f"{path}, line {line}: {image!r}: {found.problem}; rename the files")
        pictures.append(LabelledPicture(image, Picture(found.path), label[name]))
    return _checked(str(path), LabelledSet(classes, tuple(pictures)))


def _read_csv(path: Path) -> list[tuple[int, str, str]]:
    """Line, image and class of each row."""
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in CSV_COLUMNS if name not in header]:
                raise ZeroVLError(
                    f"{path}: no column {' and '.join(missing)} in its first line; expected {', '.join(CSV_COLUMNS)}"
                )
            places = [header.index(name) for name in CSV_COLUMNS]
            for cells in reader:
                if not cells:
                    continue
                image, name = (cells[place].strip() if place < len(cells) else "" for place in places)
                if problem := name_error(image) or ("no class" if not name else None):
                    raise ZeroVLError(f"{path}, line {reader.line_num}: {problem}; correct it or delete the row")
                rows.append((reader.line_num, image, name))
    except UnicodeDecodeError as error:
        raise ZeroVLError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except csv.Error as error:
        raise ZeroVLError(f"{path}: line {reader.line_num}: not valid CSV ({error}); fix the row there") from None
    except OSError as error:
        raise ZeroVLError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from None
    return rows


def _of_shards(folder: Path, given: Sequence[str]) -> LabelledSet:
    """CLIP_benchmark's layout: `test/N.tar`, perhaps `train/N.tar`, `classnames.txt`, perhaps templates."""
    if not folder.is_dir():
        raise ZeroVLError(f"{folder}: no such folder; give one with test/*.tar and {CLASS_NAMES}, on this machine")
    classes = tuple(given) or read_names(folder / CLASS_NAMES)
    in_file = folder / TEMPLATES
    templates = read_templates(in_file) if in_file.is_file() else ()
    if problem := next(filter(None, map(place_error, templates)), None):
        raise ZeroVLError(f"{in_file}: {problem}")
    test, training = (_pictures_of(folder, split, len(classes)) for split in ("test", "train"))
    if not test:
        raise ZeroVLError(f"{folder}: no pictures in test/*.tar; give a folder in CLIP_benchmark's layout")
    return _checked(str(folder), LabelledSet(classes, test, templates, training))


def _pictures_of(folder: Path, split: str, classes: int) -> tuple[LabelledPicture, ...]:
    pictures = []
    for sample in read_tars(folder / split):
        if not 0 <= sample.label < classes:
            raise ZeroVLError(f"{folder}: {sample.name} is of class {sample.label}, but there are {classes} names")
        pictures.append(LabelledPicture(sample.name, sample.picture, sample.label))
    return tuple(pictures)


def _checked(origin: str, found: LabelledSet) -> LabelledSet:
    if len(found.classes) < FEWEST:
        raise ZeroVLError(f"{origin}: {len(found.classes)} classes, at least {FEWEST} are needed to tell them apart")
    require_any(origin, found.pictures)
    return found


def require_any(origin: str, pictures: Sized) -> None:
    """Raise `ZeroVLError` where there are no pictures, or no labels of some that can be read."""
    if not len(pictures):
        raise ZeroVLError(f"{origin}: no class has a picture that can be read; give a set with pictures")


def without_pictures(classes: Sequence[str], labels: Iterable[int]) -> list[str]:
    """Return the classes that no label (N,) is of: candidates all the same, as the literature has them."""
    having = set(labels)
    return [name for number, name in enumerate(classes) if number not in having]


def with_one_picture(classes: Sequence[str], labels: Iterable[int]) -> list[str]:
    """Return the classes that one label (N,) alone is of."""
    counts = Counter(labels)
    return [name for number, name in enumerate(classes) if counts[number] == 1]


def require_learnable(
    origin: str, classes: Sequence[str], scored: Sequence[int], learned: Sequence[int] | None
) -> None:
    """Raise `ZeroVLError` where a layer is asked for a class that it cannot learn, or for none that it can.

    Args:
        origin: the set.
        classes: their names.
        scored: (N,) labels of the pictures that are classified.
        learned: labels of a training split, None where a layer learns from the others of `scored`.
    """
    if learned is None:
        if max(Counter(scored).values(), default=0) < 2:
            raise ZeroVLError(
                f"{origin}: no class has 2 pictures that can be read, and a linear probe is asked about one after it "
                "learned from others of its class; give the classes more, or take the probe out of measures"
            )
        return
    if strange := sorted(set(scored) - set(learned)):
        more = f" (and {len(strange) - 1} other classes)" if len(strange) > 1 else ""
        raise ZeroVLError(
            f"{origin}: class {classes[strange[0]]!r}{more} has pictures in test and none that can be read in train, "
            "so a linear probe cannot know it; add some to train, or take the probe out of measures"
        )
