"""Links in `data.raw`: those to folders are refused, since DVC does not look behind them, and those to nothing.

DVC 3 takes a link to a file for the file, and `data.raw` may be a link itself. A link to a folder below it counts as
nothing: no file of it is versioned, and no change in it reruns `prepare` (https://github.com/iterative/dvc/issues/10237).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.records import is_debris
from zerovl.errors import ZeroVLError

_SHOWN = 3


def refuse_dangling_links(raw: Path, setting: str) -> None:
    """Raise `ZeroVLError` where something in the folder `raw` is a link behind which nothing can be reached.

    It may be a whole source, whose disk is not mounted; left out, nobody would miss it. `setting` is `data.raw`.
    """
    links = sorted(path for path in raw.iterdir() if path.is_symlink() and not is_debris(path.name))
    gone = [f"{link}{target(link)}" for link in links if not os.path.exists(link)]
    if gone:
        raise ZeroVLError(
            f"data.raw: {setting}: {', '.join(gone[:_SHOWN])}{_rest(gone)}: nothing can be reached there, and it may "
            "be a whole source; mount its disk, correct the link, or delete it"
        )


def target(path: Path) -> str:
    """Return where a link points, as it goes behind its name in a message; "" for what is no link."""
    return f" (a link to {os.readlink(path)!r})" if path.is_symlink() else ""


def refuse_linked_folders(sources: list[Source], raw: Path) -> None:
    """Raise `ZeroVLError` where a source in the folder `raw` is a link, lies behind one, or has a link to a folder.

    Sources elsewhere are not DVC's to watch, and may be links.
    """
    watched = os.path.abspath(raw)
    for source in sources:
        if not is_remote(source.path) and f"{os.path.abspath(source.path)}{os.sep}".startswith(f"{watched}{os.sep}"):
            links = list(_linked_folders(source.path, str(raw)))
            if links:
                raise ZeroVLError(_message(source, links))


def _linked_folders(folder: str, raw: str) -> Iterator[str]:
    """Give the first link between `raw` and a folder in it, or that folder; where there is none, all links below it."""
    between = Path(os.path.relpath(folder, raw)).parts
    for place in accumulate(between, os.path.join, initial=raw):
        if place != raw and os.path.islink(place):
            yield place
            return
    for place, folders, _ in os.walk(folder):
        yield from (path for name in sorted(folders) if os.path.islink(path := os.path.join(place, name)))


def _message(source: Source, links: list[str]) -> str:
    link, files = shlex.quote(links[0]), shlex.quote(os.path.realpath(links[0]))
    return (
        f"source {source.name!r}: {', '.join(links[:_SHOWN])}{_rest(links)}: a link to a folder, behind which DVC does "
        "not look, so changes there would go unnoticed; make it a folder of links to the files, which it follows: "
        f"rm {link} && cp -rs {files} {link}; or keep the source outside of data.raw and name it in "
        "data.sources with its path (then `dvc repro -f prepare` after a change)"
    )


def _rest(links: list[str]) -> str:
    return f" and {len(links) - _SHOWN} more" if len(links) > _SHOWN else ""
