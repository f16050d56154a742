"""Sets of pictures with classes: one colour a class, named by its numbers as `fake_world` reads them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.support.fake_world import caption, png

COLOURS = ((250, 10, 20), (10, 240, 30), (20, 30, 250), (240, 230, 20), (30, 220, 230), (230, 20, 210), (120, 90, 40))


def folder_name(colour: tuple[int, int, int]) -> str:
    """Return the name of a class's folder: underscores for blanks."""
    return caption(colour).replace(" ", "_")


def shade(colour: tuple[int, int, int], number: int) -> tuple[int, int, int]:
    """Return another colour near one."""
    red, green, blue = colour
    return (red, green, max(0, blue - 3 * number))


def write_folder(folder: Path, pictures: int = 3, colours: tuple[tuple[int, int, int], ...] = COLOURS) -> Path:
    """Write `pictures` pictures a class, a folder a class."""
    for colour in colours:
        its = folder / folder_name(colour)
        its.mkdir(parents=True)
        for number in range(pictures):
            (its / f"{number}.png").write_bytes(png(shade(colour, number)))
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write members by name into a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, splits: tuple[str, ...] = ("test",), pictures: int = 3) -> Path:
    """Write tars in CLIP_benchmark's layout, two a split, with names of classes and templates."""
    for split in splits:
        samples = [(colour, number) for number in range(pictures) for colour in COLOURS]
        for tar in range(2):
            members: dict[str, bytes] = {}
            for place, (colour, number) in enumerate(samples[tar::2]):
                members[f"s{tar}{place:05}.png"] = png(shade(colour, number))
                members[f"s{tar}{place:05}.cls"] = str(COLOURS.index(colour)).encode()
            write_tar(folder / split / f"{tar}.tar", members)
        (folder / split / "nshards.txt").write_text("2")
    (folder / "classnames.txt").write_text("".join(f"{caption(colour)}\n" for colour in COLOURS))
    (folder / "zeroshot_classification_templates.txt").write_text("{c} .\n")
    return folder
