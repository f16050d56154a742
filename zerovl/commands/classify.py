"""`zerovl classify`: which of some classes the pictures of a folder show."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.commands.picture_files import picture_files
from zerovl.data.raw.records import Picture
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.sets import FEWEST, read_names
from zerovl.evaluation.classification.sets import read_templates as templates_in
from zerovl.evaluation.classification.templates import place_error, templates_of
from zerovl.log import logger
from zerovl.params import TEMPLATE_SETS
from zerovl.registry import fetch
from zerovl.text_format import names, plural

BATCH = 128
NAMED = 5  # unreadable pictures that a message lists
_FILES = (".txt", ".csv", ".tsv")


@dataclass(frozen=True)
class Answer:
    """The likeliest classes of a picture with their probabilities, best first."""

    picture: Path
    classes: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the answer as `--json` prints it."""
        found = [{"class": name, "probability": round(share, 6)} for name, share in self.classes]
        return {"picture": str(self.picture), "classes": found}


def run(model: str, classes: str, images: Path, templates: str, top: int, as_json: bool) -> None:
    """Print the `top` classes of each picture of a folder, its sub-folders included, with their probabilities.

    A probability is the softmax over the classes of cosine / temperature: it says which of these classes, not whether
    it is any of them.

    Args:
        model: a bundle's folder, or a release by reference.
        classes: a file of names, one a line, or names with commas between them.
        images: the folder.
        templates: a named list, a file of templates, or one template with {}.
        top: classes a picture.
        as_json: print JSON on standard output instead, unreadable pictures included.
    """
    if top < 1:
        raise ZeroVLError(f"--top {top}: must be 1 or more")
    wanted, prompts = read_classes(classes), read_templates(templates)
    files = picture_files(images)
    fetch.check_reference(model)
    answers, broken = _classified(model, wanted, prompts, files, min(top, len(wanted)))
    if broken:
        told = names([f"{path} ({reason})" for path, reason in broken], NAMED)
        logger().warning(f"{plural(len(broken), 'picture')} of {len(files):,} cannot be read: {told}")
    if not answers:
        raise ZeroVLError(f"{images}: none of the {len(files)} pictures can be read")
    print(_json(answers, broken) if as_json else _text(answers))


def read_classes(given: str) -> tuple[str, ...]:
    """Return the names of classes, from a file or from a list; raises `ZeroVLError` naming what is wrong with them."""
    if os.path.isfile(given) or given.endswith(_FILES):  # one that is mistyped is no name of a class
        found = read_names(Path(given))
    else:
        found = tuple(name.strip() for name in given.split(","))
    if len(found) < FEWEST or not all(found):
        raise ZeroVLError(f"--classes {given!r}: {FEWEST} names or more, none of them empty: a,b,c or a file of them")
    if twice := [name for number, name in enumerate(found) if name in found[:number]]:
        raise ZeroVLError(f"--classes {given!r}: {twice[0]!r} stands twice; keep one of them")
    return found


def read_templates(given: str) -> tuple[str, ...]:
    """Return templates by the name of a list, from a file, or the one given; raises `ZeroVLError`."""
    if given in TEMPLATE_SETS:
        return templates_of(given, ())
    found = templates_in(Path(given)) if os.path.isfile(given) or given.endswith(".txt") else (given,)
    for template in found:
        if problem := place_error(template):
            known = ", ".join(TEMPLATE_SETS)
            raise ZeroVLError(f"--templates {given!r}: {problem}, or give a file of templates or one of {known}")
    return found


def _classified(
    model: str, classes: Sequence[str], templates: Sequence[str], files: Sequence[Path], top: int
) -> tuple[list[Answer], list[tuple[Path, str]]]:
    """Return an answer a readable picture, and the others with their reasons."""
    import zerovl  # and torch: after what was asked for is known to be there
    from zerovl.evaluation.classification.encoding import encode_pictures
    from zerovl.evaluation.classification.zero_shot import class_embeddings

    encoder = zerovl.load(model)
    of_classes = class_embeddings(encoder, classes, templates, BATCH)  # (C, D)
    pictures = [Picture(str(path)) for path in files]
    encoded = encode_pictures(pictures, encoder.transform, [encoder.encode_pixels], BATCH)
    broken = [(files[row], reason) for row, reason in encoded.broken]
    if not len(encoded.rows):
        return [], broken
    shares = (encoded.outputs[0] @ of_classes.T / encoder.temperature).softmax(1)  # (n, C)
    values, places = shares.topk(top, dim=1)  # (n, top)
    answers = [
        Answer(files[row], tuple((classes[place], value) for value, place in zip(its, at, strict=True)))
        for row, its, at in zip(encoded.rows, values.tolist(), places.tolist(), strict=True)
    ]
    return answers, broken


def _text(answers: Sequence[Answer]) -> str:
    return "\n".join(
        f"{answer.picture}  " + ", ".join(f"{name} {100 * share:.1f}%" for name, share in answer.classes)
        for answer in answers
    )


def _json(answers: Sequence[Answer], broken: Sequence[tuple[Path, str]]) -> str:
    unreadable = [{"picture": str(path), "reason": reason} for path, reason in broken]
    found = {"pictures": [answer.to_json() for answer in answers], "broken": unreadable}
    return json.dumps(found, indent=2, ensure_ascii=False)
