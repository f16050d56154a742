"""`zerovl serve`: a page on this machine where pictures are searched by words or by a picture."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.errors import ZeroVLError
from zerovl.files import sha256_json
from zerovl.log import logger
from zerovl.registry import cache, fetch
from zerovl.text_format import plural
from zerovl.workspace import Workspace

if TYPE_CHECKING:
    from zerovl.indexing.listing import Listing
    from zerovl.model.encoder import Encoder

_NEEDS = ("fastapi", "uvicorn")


@dataclass(frozen=True)
class Address:
    """Where the page is served."""

    host: str
    port: int  # 0: one that is free


def run(model: str, images: Path | None, index: Path | None, where: Address) -> None:
    """Serve the pictures of an index, or of a folder that is indexed first, until Ctrl-C.

    Args:
        model: a bundle's folder, or a release by reference.
        images: a folder of pictures and tars; its index lies in the cache of releases.
        index: an index, instead of `images`.
        where: host and port.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise ZeroVLError(f"{' and '.join(missing)} not installed; run `pip install 'zerovl[serve]'`")
    if index is not None and not index.is_dir():
        raise ZeroVLError(f"{index}: no such folder; make an index with `zerovl index`")
    fetch.check_reference(model)
    from zerovl.serving.server import address, is_loopback, make_server, open_port

    taken = open_port(where.host, where.port)  # before minutes of indexing
    from zerovl.indexing.index import Index, Maker
    from zerovl.indexing.listing import listing_of

    listing = listing_of(images, None) if images is not None else None
    import zerovl
    from zerovl.serving.about import about
    from zerovl.serving.answers import Answers
    from zerovl.serving.app import make_app

    encoder = zerovl.load(model)
    if listing is not None:
        index = _indexed(listing, encoder, model)
    assert index is not None
    opened = Index(index)
    opened.check_model(Maker.of(encoder, model))
    names = [where.host, socket.gethostname(), socket.getfqdn()] if not is_loopback(where.host) else []
    app = make_app(Answers(opened, encoder), about(model, fetch.resolve(model), Workspace()), names)
    if not is_loopback(where.host):
        logger().warning(
            f"--host {where.host}: whoever reaches this machine can see the pictures; there is no password"
        )
    print(f"{plural(len(opened), 'picture')} with {model} on {address(taken)}; Ctrl-C ends it", flush=True)
    make_server(app).run(sockets=[taken])
    os._exit(0)  # at once: a thread may still decode, libraries take seconds to leave, and nothing is to be saved


def _indexed(listing: Listing, encoder: Encoder, model: str) -> Path:
    """Bring the index of a folder in the cache up to date; returns where it lies."""
    from zerovl.indexing.update import reasons_of, update

    folder = cache.cache_folder() / "indexes" / sha256_json([str(listing.root.absolute()), encoder.digest])[:16]
    done = update(folder, listing, encoder, model)
    if done.reasons:
        logger().warning(f"{plural(done.reasons.total(), 'input')} left out: {reasons_of(done.reasons)}")
    print(f"{folder}: {done.new:,} new, {done.kept:,} as before, {done.gone:,} gone")
    return folder
