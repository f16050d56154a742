"""Draw queries and the pictures found for them as one PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from zerovl.files import atomic_write

WIDTH = 1200
MARGIN = 48
GAP = 16
RULE = 28  # space above and below the line between two rows
_NAME_LINE = 20  # height of the line with a file's name
SCALE = 2  # drawn larger, then reduced: smooth edges without a dependency
PAPER, INK, MUTED, LINE, EMPTY = "#fbfaf7", "#1c1d22", "#6b6d76", "#e3e0d8", "#f1eee7"
GREEN, RED = "#1a7f4b", "#c0392f"

Mark = Literal["right", "wrong", "none"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """A picture with its mark, a label below, and the name of its file below that, where it is to be shown."""

    picture: Image.Image
    mark: Mark
    label: str
    name: str = ""


@dataclass(frozen=True)
class Row:
    """A query and what was found for it."""

    title: str
    note: str
    tiles: Sequence[Tile]


def draw(rows: Sequence[Row], title: str, subtitle: str, path: Path, columns: int = 5) -> None:
    """Write a PNG, 1200 pixels wide and as high as it takes; a row with more tiles than columns wraps."""
    side = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    image, pen, y = _page(title, subtitle, rows, columns, side)
    for number, row in enumerate(rows):
        if number:
            y += RULE
            pen.line([_at(MARGIN, y), _at(WIDTH - MARGIN, y)], fill=LINE, width=SCALE)
            y += RULE
        if row.title:
            y = _text(pen, MARGIN, y, row.title, 24, INK, WIDTH - 2 * MARGIN, lines=2)
        if row.note:
            y = _text(pen, MARGIN, y + 4, row.note, 16, MUTED, WIDTH - 2 * MARGIN, lines=1)
        y += _above_tiles(row)
        below = _below(row)
        for place, tile in enumerate(row.tiles):
            column = place % columns
            if place and not column:
                y += side + below + GAP
            _draw_tile(image, pen, MARGIN + column * (side + GAP), y, side, tile)
        y += side + below
    out = io.BytesIO()
    # Not optimised: a second of a CPU and more for 4% of the bytes.
    image.resize((WIDTH, image.height // SCALE), Image.Resampling.LANCZOS).save(out, "PNG")
    with atomic_write(path) as file:
        file.write(out.getvalue())


def _page(
    title: str, subtitle: str, rows: Sequence[Row], columns: int, side: int
) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """Make a blank page that is high enough, with its head; also says where the first row starts."""
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = WIDTH - 2 * MARGIN
    height = 2 * MARGIN + _height(probe, title, 34, width, 2, bold=True) + _height(probe, subtitle, 18, width, 2) + 50
    for row in rows:
        height += 2 * RULE + _above_tiles(row)
        height += _height(probe, row.title, 24, width, 2) if row.title else 0
        height += 4 + _height(probe, row.note, 16, width, 1) if row.note else 0
        height += -(-max(len(row.tiles), 1) // columns) * (side + _below(row) + GAP) - GAP
    height -= 2 * RULE if rows else 0
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    y = _text(pen, MARGIN, MARGIN, title, 34, INK, width, 2, bold=True)
    y = _text(pen, MARGIN, y + 8, subtitle, 18, MUTED, width, 2)
    return image, pen, y + 42


def _above_tiles(row: Row) -> int:
    """Space between what is said of a row and its tiles."""
    return 14 if row.title or row.note else 0


def _below(row: Row) -> int:
    """Space for what is said of a row's tiles."""
    return 34 + (_NAME_LINE if any(tile.name for tile in row.tiles) else 0)


def _draw_tile(image: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, side: int, tile: Tile) -> None:
    picture = tile.picture.copy()
    scale = side * SCALE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side * SCALE, side * SCALE), EMPTY)
    square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
    mask = Image.new("L", square.size, 0)
    radius = 12 * SCALE
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, square.width - 1, square.height - 1), radius, fill=255)
    image.paste(square, (x * SCALE, y * SCALE), mask)
    colour = {"right": GREEN, "wrong": RED, "none": LINE}[tile.mark]
    frame = 5 if tile.mark == "right" else 2
    box = (x * SCALE, y * SCALE, (x + side) * SCALE - 1, (y + side) * SCALE - 1)
    pen.rounded_rectangle(box, radius, outline=colour, width=frame * SCALE)
    if tile.mark != "none":
        _draw_mark(pen, x + side - 24, y + 24, colour, right=tile.mark == "right")
    font = _font(15 * SCALE, bold=False)
    for place, text in enumerate(filter(None, (tile.label, tile.name))):
        shown = _fit(pen, text, font, (side - 4) * SCALE)
        pen.text(_at(x + 2, y + side + 9 + place * _NAME_LINE), shown, fill=MUTED, font=font)


def _draw_mark(pen: ImageDraw.ImageDraw, x: int, y: int, colour: str, *, right: bool) -> None:
    """Draw a tick or a cross in a disc, since not every font has the signs."""
    pen.ellipse([_at(x - 14, y - 14), _at(x + 14, y + 14)], fill=colour, outline=PAPER, width=2 * SCALE)
    width = 3 * SCALE
    if right:
        pen.line([_at(x - 6, y), _at(x - 2, y + 5), _at(x + 6, y - 5)], fill="white", width=width, joint="curve")
    else:
        pen.line([_at(x - 5, y - 5), _at(x + 5, y + 5)], fill="white", width=width)
        pen.line([_at(x - 5, y + 5), _at(x + 5, y - 5)], fill="white", width=width)


def _at(x: int, y: int) -> tuple[int, int]:
    return x * SCALE, y * SCALE


def _height(pen: ImageDraw.ImageDraw, text: str, size: int, width: int, lines: int, *, bold: bool = False) -> int:
    return len(_wrap(pen, text, _font(size * SCALE, bold=bold), width * SCALE, lines)) * round(size * 1.35)


def _text(
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    text: str,
    size: int,
    colour: str,
    width: int,
    lines: int,
    *,
    bold: bool = False,
) -> int:
    """Draw wrapped text; returns the y below it."""
    font = _font(size * SCALE, bold=bold)
    for line in _wrap(pen, text, font, width * SCALE, lines):
        pen.text(_at(x, y), line, fill=colour, font=font)
        y += round(size * 1.35)
    return y


def _wrap(pen: ImageDraw.ImageDraw, text: str, font: Font, width: int, lines: int) -> list[str]:
    """Break text into at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    wrapped: list[str] = []
    words = text.split() or [""]
    while words and len(wrapped) < lines:
        line = words.pop(0)
        while words and pen.textlength(f"{line} {words[0]}", font) <= width:
            line = f"{line} {words.pop(0)}"
        if pen.textlength(line, font) > width or (words and len(wrapped) == lines - 1):
            line = _shorten(pen, line, font, width)
        wrapped.append(line)
    return wrapped


def _fit(pen: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """Cut a line to a width in its middle: names of files tell something at both ends."""
    text = re.sub(r"[\r\n\t\v\f]+", " ", text)  # names may have a line break, and Pillow measures one line
    if pen.textlength(text, font) <= width:
        return text
    kept = next(
        (count for count in range(len(text) - 1, 1, -1) if pen.textlength(_middle_cut(text, count), font) <= width), 1
    )
    return _middle_cut(text, kept)


def _middle_cut(text: str, kept: int) -> str:
    """The first and last of `kept` characters, with an ellipsis between; of an odd number the end has one more."""
    return f"{text[: kept // 2]}...{text[len(text) - (kept + 1) // 2 :]}"


def _shorten(pen: ImageDraw.ImageDraw, line: str, font: Font, width: int) -> str:
    while line and pen.textlength(line + "...", font) > width:
        line = line[:-1]
    return line.rstrip() + "..."


@cache
def _font(size: int, *, bold: bool) -> Font:
    try:
        return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)
    except OSError:  # not installed: the font that comes with PIL has Latin letters only
        return ImageFont.load_default(size)
