"""Links in `data.raw`: those to folders are refused, since DVC does not look behind them, and those to nothing.

DVC 3 takes a link to a file for the file, and `data.raw` may be a link itself. A link to a folder below it counts as
nothing: no file of it is versioned, and no change in it reruns `prepare` (https://github.com/iterative/dvc/issues/10237).
A link to nothing may have been a split or a table, which nobody would miss. One with the name of a picture is left to
the table that names it: the picture is counted as missing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from zerovl.data.raw.layout import Source, is_remote
from zerovl.data.raw.records import PICTURES, is_debris
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


def refuse_linked_sources(raw: Path, names: list[str]) -> None:
    """Raise `ZeroVLError` where a source's folder in `raw` is a link, whatever lies behind it and however large."""
    for name in names:
        if os.path.islink(raw / name):
            raise ZeroVLError(_message(name, [str(raw / name)]))


def target(path: Path) -> str:
    """Return where a link points, as it goes behind its name in a message; "" for what is no link."""
    return f" (a link to {os.readlink(path)!r})" if path.is_symlink() else ""


def refuse_links(sources: list[Source], raw: Path) -> None:
    """Raise `ZeroVLError` for links of sources on this machine: to nothing, and in the folder `raw` to folders.

    In `raw` a source must not be a link either, nor lie behind one, and all below it is looked at. Sources elsewhere
    are not DVC's to watch, and may be links and have them; of these the source's own folder is looked at alone.
    """
    watched = os.path.abspath(raw)
    for source in sources:
        if is_remote(source.path):
            continue
        if not f"{os.path.abspath(source.path)}{os.sep}".startswith(f"{watched}{os.sep}"):
            with os.scandir(source.path) as entries:
                links = sorted(entry.path for entry in entries if entry.is_symlink())
            _refuse_gone(source, links)
            continue
        if link := _link_above(source.path, str(raw)):
            raise ZeroVLError(_message(source.name, [link]))
        links = sorted(_links_below(source.path))
        if to_folders := [link for link in links if os.path.isdir(link)]:
            raise ZeroVLError(_message(source.name, to_folders))
        _refuse_gone(source, links)


def _link_above(folder: str, raw: str) -> str:
    """Return the first link between `raw` and a folder in it, or that folder; "" where there is none."""
    between = Path(os.path.relpath(folder, raw)).parts
    places = accumulate(between, os.path.join, initial=raw)
    return next((place for place in places if place != raw and os.path.islink(place)), "")


def _links_below(folder: str) -> Iterator[str]:
    """Give all links below a folder; those that cannot be looked into have none."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            yield entry.path
        elif entry.is_dir():
            yield from _links_below(entry.path)


def _refuse_gone(source: Source, links: list[str]) -> None:
    """Raise `ZeroVLError` where one of the links of a source leads nowhere and is neither debris nor a picture."""
    gone = [
        f"{link}{target(Path(link))}"
        for link in links
        if not is_debris(name := os.path.basename(link))
        and name.rpartition(".")[2].lower() not in PICTURES
        and not os.path.exists(link)
    ]
    if gone:
        raise ZeroVLError(
            f"source {source.name!r}: {', '.join(gone[:_SHOWN])}{_rest(gone)}: nothing can be reached there, and it "
            "may be a split, a tar or a table; mount its disk, correct the link, or delete it"
        )


def _message(source: str, links: list[str]) -> str:
    link, files = shlex.quote(links[0]), shlex.quote(os.path.realpath(links[0]))
    return (
        f"source {source!r}: {', '.join(links[:_SHOWN])}{_rest(links)}: a link to a folder, behind which DVC does "
        "not look, so changes there would go unnoticed; make it a folder of links to the files, which it follows: "
        f"rm {link} && cp -rs {files} {link}; or keep the source outside of data.raw and name it in "
        "data.sources with its path (then `dvc repro -f prepare` after a change)"
    )


def _rest(links: list[str]) -> str:
    return f" and {len(links) - _SHOWN} more" if len(links) > _SHOWN else ""
