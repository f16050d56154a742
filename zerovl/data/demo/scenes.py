"""The demo's scenes: combinations of six attributes, and the three ways in which its sources put them into words."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "moon")
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
SIZES = ("small", "large")
COUNTS = (1, 2, 3, 4)
POSITIONS = ("centre", "top left", "top right", "bottom left", "bottom right")
TEXTURES = ("solid", "striped", "dotted", "hollow")


@dataclass(frozen=True, order=True)
class Scene:
    """One group of equal shapes."""

    shape: str
    colour: str
    size: str
    count: int
    position: str
    texture: str


def all_scenes() -> list[Scene]:
    """Return every combination of the attributes."""
    return [Scene(*values) for values in itertools.product(SHAPES, COLOURS, SIZES, COUNTS, POSITIONS, TEXTURES)]


def poster_captions(scene: Scene, random: random.Random) -> list[str]:
    """Return terse catalogue lines, two or three a picture."""
    count = {1: ["a", "one"], 2: ["two", "a pair of"], 3: ["three"], 4: ["four"]}[scene.count]
    size = {"small": ["small", "little"], "large": ["large", "big"]}[scene.size]
    texture = {"solid": ["solid", "plain"], "striped": ["striped"], "dotted": ["dotted"], "hollow": ["hollow"]}
    where = _corner(scene.position, ["in the centre", "in the middle"], "in the {} corner", "{}")
    patterns = [
        "{count} {size} {texture} {colour} {shape} {where}",
        "{count} {size} {colour} {shape}, {texture}, {where}",
        "{where}: {count} {size} {texture} {shape} in {colour}",
    ]
    return [
        pattern.format(
            count=random.choice(count),
            size=random.choice(size),
            texture=random.choice(texture[scene.texture]),
            colour=scene.colour,
            shape=_plural(scene.shape, scene.count),
            where=random.choice(where),
        )
        for pattern in random.sample(patterns, random.choice((2, 3)))
    ]


def board_captions(scene: Scene, random: random.Random) -> list[str]:
    """Return what a teacher would say of a drawing, two or three sentences a picture."""
    count = {1: ["a single", "just one"], 2: ["two", "a couple of"], 3: ["three", "a trio of"], 4: ["four"]}
    size = {"small": ["tiny", "small"], "large": ["big", "huge"]}[scene.size]
    drawn = {
        "solid": ["filled in", "coloured in"],
        "striped": ["hatched", "filled with stripes"],
        "dotted": ["spotted", "filled with dots"],
        "hollow": ["outlined", "left empty"],
    }[scene.texture]
    where = _corner(scene.position, ["in the middle", "at the centre"], "at the {}", "towards the {}")
    patterns = [
        "a chalk drawing of {count} {size} {colour} {shape} {drawn}, {where} of the board",
        "{where} of the blackboard, {count} {size} {shape} in {colour} chalk, {drawn}",
        "someone drew {count} {size} {colour} {shape} {where}, {drawn}",
    ]
    return [
        pattern.format(
            count=random.choice(count[scene.count]),
            size=random.choice(size),
            drawn=random.choice(drawn),
            colour=scene.colour,
            shape=_plural(scene.shape, scene.count),
            where=random.choice(where),
        )
        for pattern in random.sample(patterns, random.choice((2, 3)))
    ]


def photo_captions(scene: Scene, random: random.Random) -> list[str]:
    """Return one alt text a picture, as the web has them."""
    pattern = random.choice(
        [
            "photo of {count} {size} {colour} {shape} {texture} {where}",
            "{colour} {shape} {texture}, {count} {size}, {where}",
            "{size} {colour} {shape} ({count}) {texture} seen {where}",
        ]
    )
    texture = {
        "solid": ["without pattern", "of one colour"],
        "striped": ["with stripes", "with lines"],
        "dotted": ["with dots", "with spots"],
        "hollow": ["with a hole", "open inside"],
    }[scene.texture]
    where = _corner(scene.position, ["near the middle", "near the centre"], "near the {}", "on the {}")
    return [
        pattern.format(
            count={1: "one", 2: "two", 3: "three", 4: "four"}[scene.count],
            size={"small": random.choice(["small", "mini"]), "large": random.choice(["large", "giant"])}[scene.size],
            texture=random.choice(texture),
            colour=scene.colour,
            shape=_plural(scene.shape, scene.count),
            where=random.choice(where),
        )
    ]


def _corner(position: str, centre: list[str], *patterns: str) -> list[str]:
    """Ways to say a position: `upper` and `lower` for `top` and `bottom` too."""
    if position == "centre":
        return centre
    other = position.replace("top", "upper").replace("bottom", "lower")
    return [pattern.format(words) for pattern, words in zip(patterns, (position, other), strict=False)]


def _plural(shape: str, count: int) -> str:
    if count == 1:
        return shape
    return {"cross": "crosses"}.get(shape, f"{shape}s")
