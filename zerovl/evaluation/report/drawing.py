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
SCALE = 2  # drawn larger, then reduced: smooth edges without a dependency
PAPER, INK, MUTED, LINE, EMPTY = "#fbfaf7", "#1c1d22", "#6b6d76", "#e3e0d8", "#f1eee7"
GREEN, RED = "#1a7f4b", "#c0392f"

Mark = Literal["right", "wrong", "none"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """A picture with its mark and a label below, which may end in two spaces and the name of a file."""

    picture: Image.Image
    mark: Mark
    label: str


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
        y = _text(pen, MARGIN, y, row.title, 24, INK, WIDTH - 2 * MARGIN, lines=2)
        if row.note:
            y = _text(pen, MARGIN, y + 4, row.note, 16, MUTED, WIDTH - 2 * MARGIN, lines=1)
        y += 14
        for place, tile in enumerate(row.tiles):
            column = place % columns
            if place and not column:
                y += _tile_height(side) + GAP
            _draw_tile(image, pen, MARGIN + column * (side + GAP), y, side, tile)
        y += _tile_height(side)
    out = io.BytesIO()
    image.resize((WIDTH, image.height // SCALE), Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
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
        height += 2 * RULE + 14 + _height(probe, row.title, 24, width, 2)
        height += 4 + _height(probe, row.note, 16, width, 1) if row.note else 0
        height += -(-max(len(row.tiles), 1) // columns) * (_tile_height(side) + GAP) - GAP
    height -= 2 * RULE if rows else 0
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    y = _text(pen, MARGIN, MARGIN, title, 34, INK, width, 2, bold=True)
    y = _text(pen, MARGIN, y + 8, subtitle, 18, MUTED, width, 2)
    return image, pen, y + 42


def _tile_height(side: int) -> int:
    return side + 34


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
    label = _fit_label(pen, tile.label, font, (side - 4) * SCALE)
    pen.text(_at(x + 2, y + side + 9), label, fill=MUTED, font=font)


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


def _fit_label(pen: ImageDraw.ImageDraw, label: str, font: Font, width: int) -> str:
    """Cut a label to a width, at the front of what stands behind its last two spaces: names differ at their ends."""
    label = re.sub(r"[\r\n\t\v\f]+", " ", label)  # names may have a line break, and Pillow measures one line
    head, gap, name = label.rpartition("  ")
    start = f"{head}{gap}"
    if pen.textlength(label, font) <= width:
        return label
    while name and pen.textlength(f"{start}...{name}", font) > width:
        name = name[1:]
    return f"{start}...{name}" if name else _shorten(pen, label, font, width)


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
