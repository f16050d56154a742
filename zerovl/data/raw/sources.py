"""Which sources there are, and how each is laid out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from zerovl.data.raw.layout import Layout, Source, is_remote
from zerovl.data.raw.layouts import LAYOUTS
from zerovl.data.raw.links import refuse_dangling_links, refuse_linked_sources, target
from zerovl.data.raw.records import is_debris, is_tar
from zerovl.data.raw.s3_source import ListedTars
from zerovl.data.raw.source_hints import hint_of
from zerovl.data.raw.table_files import is_table
from zerovl.data.raw.tar_splits import has_evaluated_tars
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import DataParams, SourceParams

_TAKEN = {"mean": "the mean over sources", "pool": "all sources searched as one"}  # in metrics, tables and the gate
_MAX_NAME = 64  # key and ending must fit into the 100 bytes of a USTAR name


def resolve(data: DataParams, root: Path) -> list[Source]:
    """Return the sources of `data.sources`, else every sub-folder of `data.raw`; paths are relative to `root`.

    Raises `ZeroVLError` where there is none, or one has no recognised layout or no wanted split.
    """
    wanted = data.sources or _folders(root / data.raw, data.raw)
    places = [_place(settings, root) for settings in wanted]
    return [_resolve(settings, root, places) for settings in sorted(wanted, key=lambda settings: settings.name)]


def why_without(source: Source, split: str) -> str:
    """Return in a line where a source lies, and why it has no pair of a split."""
    where = f"{source.name}: {source.path} ({source.layout.name} layout, {source.layout.signs})"
    if split in source.splits:
        return f"{where} has a {split} split without a usable pair"
    folder = f", though {split}/ is there" if Path(source.path, split).is_dir() else ""
    return f"{where} has no {split} split that is wanted{folder}"


def _folders(raw: Path, setting: str) -> list[SourceParams]:
    if not raw.is_dir():
        raise ZeroVLError(
            f"data.raw: {setting}: no such folder{target(raw)}; put sources there (data/README.md) or change data.raw"
        )
    refuse_dangling_links(raw, setting)
    names = sorted(path.name for path in raw.iterdir() if path.is_dir() and not is_debris(path.name))
    loose = _loose(raw)
    if not names:
        raise ZeroVLError(
            f"data.raw: {setting} has no sub-folder; each source is one (layouts: data/README.md)"
            f"{f'; {loose}' if loose else ''}"
        )
    if loose:
        logger().warning(f"data.raw: {setting}: {loose}")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ZeroVLError(
                f"data.raw: source folder {str(raw / name)!r}: a name may have letters, digits, '-' and '_' only; "
                "rename it, or name the source in data.sources"
            )
    refuse_linked_sources(raw, names)
    return [SourceParams(name=name, path=f"{setting}/{name}") for name in names]


def _loose(raw: Path) -> str:
    """Return which tars and tables lie in `data.raw` itself, and what to do; "" where there are none."""
    files = sorted(
        path.name
        for path in raw.iterdir()
        if path.is_file() and not is_debris(path.name) and (is_tar(path.name) or is_table(path))
    )
    if not files:
        return ""
    rest = f" and {len(files) - 1} more" if len(files) > 1 else ""
    verb = "lie" if rest else "lies"
    return f"{files[0]}{rest} {verb} beside the sources' folders, which is not read: put it into a folder of its own"


def _place(settings: SourceParams, root: Path) -> str:
    return settings.path.rstrip("/") if is_remote(settings.path) else str(root / settings.path)


def _resolve(settings: SourceParams, root: Path, places: list[str]) -> Source:
    if settings.name in _TAKEN:
        raise ZeroVLError(
            f"source {settings.name!r}: scores of {_TAKEN[settings.name]} have that name, so those of the source would "
            "be taken for them; rename its folder, or name it in data.sources"
        )
    if len(settings.name) > _MAX_NAME:
        raise ZeroVLError(f"source {settings.name!r}: name longer than {_MAX_NAME} characters; shorten it")
    remote, path = is_remote(settings.path), _place(settings, root)
    if not remote and not Path(path).is_dir():
        raise ZeroVLError(
            f"source {settings.name!r}: {settings.path}: no such folder{target(Path(path))}; correct its path"
        )
    layout = _remote_layout(settings) if remote else _local_layout(settings, Path(path))
    _check_settings(settings, layout)
    options = settings.model_dump(exclude={"name", "path", "layout", "splits"})
    inside = tuple(place for place in places if place.startswith(f"{path}/"))
    listed = ListedTars(path) if remote else None
    source = Source(
        settings.name, path, layout, tuple(settings.splits), **options, sources_inside=inside, listed=listed
    )
    present = layout.splits(source)
    splits = tuple(split for split in present if split in settings.splits)
    if not splits:
        found = f"has {', '.join(present)}" if present else "is empty"
        raise ZeroVLError(
            f"source {settings.name!r}: {settings.path} ({layout.name} layout) {found}, wanted: "
            f"{', '.join(settings.splits) or 'no split'}; add its data, change its splits, or take the source out"
        )
    return replace(source, splits=splits)


def _check_settings(settings: SourceParams, layout: Layout) -> None:
    """Raise `ZeroVLError` where a setting is set that the layout does not look at: it would change nothing."""
    for name in sorted(frozenset[str]().union(*(each.uses for each in LAYOUTS.values())) - layout.uses):
        value = getattr(settings, name)
        if value != SourceParams.model_fields[name].default:
            users = [each.name for each in LAYOUTS.values() if name in each.uses]
            raise ZeroVLError(
                f"source {settings.name!r}: {name} is {value!r}, which its layout {layout.name} does not use "
                f"({' and '.join(users)} {'do' if len(users) > 1 else 'does'}); take {name} out, or correct the layout"
            )


def _remote_layout(settings: SourceParams) -> Layout:
    """Return the layout that is named, else the only one that can be read from S3; nothing is looked up there."""
    possible = {name: layout for name, layout in LAYOUTS.items() if layout.remote}
    if settings.layout == "auto" and len(possible) == 1:
        return next(iter(possible.values()))
    if settings.layout == "auto":
        raise ZeroVLError(
            f"source {settings.name!r}: its layout is not looked up on s3://; name it in data.sources: "
            f"{' or '.join(possible)}"
        )
    if settings.layout not in possible:
        raise ZeroVLError(
            f"source {settings.name!r}: layout {settings.layout} cannot be read from s3://; "
            f"only {' or '.join(possible)} can, or fetch it first: dvc import-url"
        )
    return possible[settings.layout]


def _local_layout(settings: SourceParams, folder: Path) -> Layout:
    """Return the layout that is named, else the one that knows the folder's files."""
    if settings.layout != "auto":
        return LAYOUTS[settings.layout]
    found = [layout for layout in LAYOUTS.values() if layout.detect(folder)]
    if len(found) == 2 and LAYOUTS["coco"] in found:
        found.remove(LAYOUTS["coco"])  # its files lie beside Karpathy's too, and beside tables that were made of them
    if len(found) == 1:
        return found[0]
    if not found and has_evaluated_tars(folder):  # not asked of a folder that another layout knows
        return LAYOUTS["webdataset"]
    if found:
        raise ZeroVLError(
            f"source {settings.name!r}: {settings.path} fits the layouts "
            f"{' and '.join(layout.name for layout in found)}; name it in data.sources with its layout"
        )
    empty = next(folder.iterdir(), None) is None
    signs = ", ".join(f"{layout.signs} ({layout.name})" for layout in LAYOUTS.values())
    raise ZeroVLError(
        f"source {settings.name!r}: {settings.path} {'is empty' if empty else 'has no known layout'}; looked for "
        f"{signs}; data/README.md shows each"
        f"{hint_of(folder)}"
    )
