"""The demo's pictures: a scene drawn with Pillow in the style of one of three sources.

Everything is drawn four times too large and reduced, which smooths the edges. Random numbers come
from `random.Random` alone and coordinates are rounded, so that the bytes are the same everywhere.
"""

from __future__ import annotations

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from zerovl.data.demo.scenes import Scene

_FINER = 4  # supersampling
_RGB = tuple[int, int, int]

_POSTER = {
    "red": (214, 48, 49), "orange": (240, 125, 20), "yellow": (250, 200, 20), "green": (46, 150, 70),
    "turquoise": (32, 190, 185), "blue": (40, 90, 200), "purple": (125, 60, 175), "pink": (245, 125, 175),
}  # fmt: skip
_CHALK = {
    "red": (240, 100, 95), "orange": (248, 165, 90), "yellow": (250, 232, 125), "green": (135, 215, 130),
    "turquoise": (115, 225, 220), "blue": (110, 155, 245), "purple": (185, 135, 235), "pink": (250, 170, 205),
}  # fmt: skip
# Shapes in a square of side 1; the middle of each count's cells, and the side of a cell, in sides of the picture.
_CELLS = {
    1: [(0.0, 0.0)],
    2: [(-0.145, 0.0), (0.145, 0.0)],
    3: [(0.0, -0.135), (-0.145, 0.13), (0.145, 0.13)],
    4: [(-0.145, -0.14), (0.145, -0.14), (-0.145, 0.14), (0.145, 0.14)],
}
_CELL = {1: 0.42, 2: 0.28, 3: 0.27, 4: 0.27}
_WALLS = [(205, 214, 224), (222, 208, 196), (206, 220, 204), (220, 208, 222), (226, 222, 200), (200, 216, 218)]
_SHARE = {"small": 0.6, "large": 1.0}
_MIDDLE = {
    "centre": (0.5, 0.5), "top left": (0.32, 0.32), "top right": (0.68, 0.32), "bottom left": (0.32, 0.68),
    "bottom right": (0.68, 0.68),
}  # fmt: skip


def poster(scene: Scene, side: int, random: random.Random) -> Image.Image:
    """Draw flat ink on uneven paper."""
    picture = _mottled(side, (251, 246, 234), (238, 228, 209), random)
    ink = _POSTER[scene.colour]
    shape, marks, _ = _masks(scene, side, random)
    if scene.texture in ("striped", "dotted"):
        picture.paste(_mixed(ink, (255, 255, 255), 60), mask=shape)
    picture.paste(ink, mask=marks)
    return picture


def board(scene: Scene, side: int, random: random.Random) -> Image.Image:
    """Draw chalk on a smudged blackboard."""
    ground = random.choice([((40, 66, 55), (58, 86, 73)), ((42, 50, 62), (62, 73, 86))])
    picture = _mottled(side, *ground, random)
    _, marks, rim = _masks(scene, side, random)
    chalk = ImageChops.lighter(marks, _faded(rim, 60))
    colour = _CHALK[scene.colour]
    picture.paste(colour, mask=_faded(chalk.filter(ImageFilter.BoxBlur(side / 32)), 22))
    picture.paste(colour, mask=ImageChops.multiply(chalk, _grain(side, 150, 255, random)))
    return picture


def photo(scene: Scene, side: int, random: random.Random) -> Image.Image:
    """Draw objects with light and shadow before a coloured wall, taken with a grainy camera."""
    wall = random.choice(_WALLS)
    picture = Image.composite(
        Image.new("RGB", (side, side), wall),
        Image.new("RGB", (side, side), _mixed(wall, (0, 0, 0), 32)),
        _slope(side, random),
    )
    shape, marks, rim = _masks(scene, side, random)
    body = rim if scene.texture == "hollow" else shape
    step = max(side // 64, 1)
    shadow = _moved(body, 2 * step).filter(ImageFilter.BoxBlur(side / 48))
    picture.paste((38, 34, 44), mask=_faded(shadow, 60))
    colour = _POSTER[scene.colour]
    plain = scene.texture in ("solid", "hollow")
    picture.paste(colour if plain else _mixed(colour, (255, 255, 255), 65), mask=body)
    picture.paste(colour, mask=body if plain else marks)
    # Light from the upper left: the body's edge there is bright, the opposite one dark.
    picture.paste((255, 255, 255), mask=_faded(ImageChops.subtract(body, _moved(body, step)), 50))
    picture.paste((0, 0, 0), mask=_faded(ImageChops.subtract(body, _moved(body, -step)), 35))
    noise = _grain(side, 0, 36, random)
    return ImageChops.add(picture, Image.merge("RGB", (noise, noise, noise)), offset=-18)


STYLES = {"poster": poster, "board": board, "photo": photo}


def _masks(scene: Scene, side: int, random: random.Random) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Three masks, (side, side): the whole shapes, what the texture leaves of them, and their rims."""
    canvas = side * _FINER
    shape, rim = Image.new("L", (canvas, canvas)), Image.new("L", (canvas, canvas))
    cell = _CELL[scene.count] * _SHARE[scene.size] * random.uniform(0.92, 1.05)
    width = round(2 * max(min(0.038, cell * 0.17), 0.02) * canvas)  # half of it falls outside
    left, top = _MIDDLE[scene.position]
    left += random.uniform(-0.03, 0.03)
    top += random.uniform(-0.03, 0.03)
    outline = _OUTLINES[scene.shape]
    joint = "curve" if len(outline) < 20 else None  # slow, and not seen where the corners are flat
    for x, y in _CELLS[scene.count]:
        middle = (left + x + random.uniform(-0.008, 0.008), top + y + random.uniform(-0.008, 0.008))
        turn = math.radians(random.uniform(-9, 9))
        points = [_placed(point, middle, cell, turn, canvas) for point in outline]
        ImageDraw.Draw(shape).polygon(points, fill=255)
        ImageDraw.Draw(rim).line([*points, points[0], points[1]], fill=255, width=width, joint=joint)
    rim = ImageChops.multiply(rim, shape)
    marks = {
        "solid": lambda: shape,
        "hollow": lambda: rim,
        "striped": lambda: ImageChops.multiply(shape, _stripes(canvas, cell)),
        "dotted": lambda: ImageChops.multiply(shape, _dots(canvas, cell)),
    }[scene.texture]()
    return _reduced(shape, side), _reduced(marks, side), _reduced(rim, side)


def _placed(
    point: tuple[float, float], middle: tuple[float, float], cell: float, turn: float, canvas: int
) -> tuple[int, int]:
    x, y = point
    across = x * math.cos(turn) - y * math.sin(turn)
    down = x * math.sin(turn) + y * math.cos(turn)
    return round((middle[0] + across * cell) * canvas), round((middle[1] + down * cell) * canvas)


def _stripes(canvas: int, cell: float) -> Image.Image:
    pattern = Image.new("L", (canvas, canvas))
    pen = ImageDraw.Draw(pattern)
    period = max(round(canvas * max(cell / 4, 0.055)), 4)
    for start in range(-canvas, canvas, period):
        pen.line([(start, canvas), (start + canvas, 0)], fill=255, width=round(period * 0.38))
    return pattern


def _dots(canvas: int, cell: float) -> Image.Image:
    pattern = Image.new("L", (canvas, canvas))
    pen = ImageDraw.Draw(pattern)
    period = max(round(canvas * max(cell / 4.5, 0.058)), 4)
    radius = round(period * 0.34)
    for row, y in enumerate(range(0, canvas + period, period)):
        for x in range(period // 2 * (row % 2), canvas + period, period):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return pattern


def _mottled(side: int, light: _RGB, dark: _RGB, random: random.Random) -> Image.Image:
    """A ground between two colours that changes slowly, (side, side) RGB."""
    clouds = _grain(6, 0, 255, random).resize((side, side), Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", (side, side), light), Image.new("RGB", (side, side), dark), clouds)


def _slope(side: int, random: random.Random) -> Image.Image:
    """Light that falls from a random side, with soft patches, (side, side) grey."""
    across, down = random.choice([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    values = [
        128 + 11 * (across * (2 * x - 5) + down * (2 * y - 5)) + random.randint(-45, 45)
        for y in range(6)
        for x in range(6)
    ]
    coarse = Image.frombytes("L", (6, 6), bytes(max(0, min(255, value)) for value in values))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def _grain(side: int, low: int, high: int, random: random.Random) -> Image.Image:
    """Independent grey pixels between low and high, (side, side)."""
    raw = Image.frombytes("L", (side, side), random.randbytes(side * side))
    return raw.point([low + value * (high - low) // 255 for value in range(256)])


def _mixed(colour: _RGB, other: _RGB, percent: int) -> _RGB:
    """`colour` with so many percent of `other`."""
    red, green, blue = ((one * (100 - percent) + two * percent) // 100 for one, two in zip(colour, other, strict=True))
    return red, green, blue


def _moved(mask: Image.Image, pixels: int) -> Image.Image:
    """Shifted to the lower right; what leaves the picture does not come back on the other side."""
    moved = Image.new("L", mask.size)
    moved.paste(mask, (pixels, pixels))
    return moved


def _faded(mask: Image.Image, percent: int) -> Image.Image:
    return mask.point([value * percent // 100 for value in range(256)])


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    return picture.reduce(picture.width // side)


def _ring(corners: int, outer: float, inner: float, start: float) -> list[tuple[float, float]]:
    """Corners on two circles in turn, the first at the angle `start` in degrees."""
    angles = [math.radians(start + 360 * number / corners) for number in range(corners)]
    radii = [inner if number % 2 else outer for number in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    """https://mathworld.wolfram.com/HeartCurve.html, the eighth one, scaled into the square."""
    turns = [2 * math.pi * number / 40 for number in range(40)]
    return [
        (
            0.0305 * 16 * math.sin(turn) ** 3,
            -0.0305 * (13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn) + 2),
        )
        for turn in turns
    ]


def _moon() -> list[tuple[float, float]]:
    """A crescent: the outer arc from horn to horn, back along a flatter one."""
    outer = [math.radians(angle) for angle in range(50, 311, 10)]
    horn_x, horn_y = 0.5 * math.cos(outer[0]), 0.5 * math.sin(outer[0])
    back = [-1 + 2 * number / 12 for number in range(1, 12)]
    arc = [(0.5 * math.cos(angle), 0.5 * math.sin(angle)) for angle in outer]
    inner = [(horn_x - 0.42 * (1 - t * t), horn_y * t) for t in back]
    return [(x + 0.08, y) for x, y in [*arc, *inner]]


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": _ring(40, 0.48, 0.48, 0),
    "square": [(-0.42, -0.42), (0.42, -0.42), (0.42, 0.42), (-0.42, 0.42)],
    "triangle": [(0.0, -0.47), (0.5, 0.4), (-0.5, 0.4)],
    "star": _ring(10, 0.54, 0.24, -90),
    "heart": _heart(),
    "cross": [
        (-0.16, -0.48), (0.16, -0.48), (0.16, -0.16), (0.48, -0.16), (0.48, 0.16), (0.16, 0.16),
        (0.16, 0.48), (-0.16, 0.48), (-0.16, 0.16), (-0.48, 0.16), (-0.48, -0.16), (-0.16, -0.16),
    ],
    "diamond": [(0.0, -0.54), (0.4, 0.0), (0.0, 0.54), (-0.4, 0.0)],
    "moon": _moon(),
}  # fmt: skip
