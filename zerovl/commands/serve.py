"""`zerovl serve`: a page on this machine where pictures are searched by words or by a picture."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from zerovl.errors import ZeroVLError
from zerovl.files import sha256_json, shared
from zerovl.log import logger
from zerovl.registry import cache, fetch
from zerovl.shared_folder import make_folder
from zerovl.text_format import plural
from zerovl.workspace import Workspace

if TYPE_CHECKING:
    from zerovl.indexing.index import Index
    from zerovl.indexing.listing import Listing
    from zerovl.model.encoder import Encoder

_NEEDS = ("fastapi", "uvicorn")


@dataclass(frozen=True)
class Address:
    """Where the page is served."""

    host: str
    port: int  # 0: one that is free


def run(model: str, images: Path | None, index: Path | None, where: Address, exact: bool = False) -> None:
    """Serve the pictures of an index, or of a folder that is indexed first, until Ctrl-C.

    Args:
        model: a bundle's folder, or a release by reference.
        images: a folder of pictures and tars; its index lies in the cache of releases.
        index: an index, instead of `images`.
        where: host and port.
        exact: look at all pictures, whatever file for approximate search the index has.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise ZeroVLError(f"{' and '.join(missing)} not installed; run `pip install 'zerovl[serve]'`")
    if index is not None and not index.is_dir():
        raise ZeroVLError(f"{index}: no such folder; make an index with `zerovl index`")
    fetch.check_reference(model)
    from zerovl.serving.server import address, is_loopback, make_server, open_port

    taken = open_port(where.host, where.port)  # before minutes of indexing
    from zerovl.indexing.approximate import open_nearest
    from zerovl.indexing.index import Index
    from zerovl.indexing.listing import listing_of
    from zerovl.indexing.search import nearest

    listing = None if images is None else listing_of(images, None)
    import zerovl
    from zerovl.serving.about import about
    from zerovl.serving.answers import Answers
    from zerovl.serving.app import make_app

    encoder = zerovl.load(model)
    told = about(model, fetch.resolve(model), Workspace())  # now: an alias may move while pictures are indexed
    if listing is not None:
        opened = _indexed(listing, encoder, model)
    elif index is not None:
        opened = Index(index)
    else:
        raise ZeroVLError("nothing to serve; give --images or --index")
    opened.check_model(model, encoder.digest)
    opened.check_images()
    names = [where.host, socket.gethostname(), socket.getfqdn()] if not is_loopback(where.host) else []
    search = nearest if exact else open_nearest(opened)
    app = make_app(Answers(opened, encoder, search), told, names)
    if not is_loopback(where.host):
        logger().warning(
            f"--host {where.host}: whoever reaches this machine can see the pictures; there is no password"
        )
    # A space after the address: terminals would take a mark there for a part of it.
    print(f"{plural(len(opened), 'picture')} with {model} on {address(taken)} (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal that ended it once more
        make_server(app).run(sockets=[taken])
    os._exit(0)  # at once: a thread may still decode, libraries take seconds to leave, and nothing is to be saved


def _indexed(listing: Listing, encoder: Encoder, model: str) -> Index:
    """Bring the index of a folder in the cache up to date, and open it; it stays open when the cache removes it."""
    from zerovl.indexing.index import Index
    from zerovl.indexing.update import reasons_of, update

    entry = cache.cache_folder() / "indexes" / sha256_json([str(listing.root.absolute()), encoder.digest])[:16]
    with cache.rights_explained():
        make_folder(entry, cache.cache_folder())
        os.utime(entry)  # when it was last used
    with cache.rights_explained(), shared(entry):  # as the cache holds what is in use
        done = update(entry / "index", listing, encoder, model)
        opened = Index(entry / "index")
    if done.reasons:
        logger().warning(f"{plural(done.reasons.total(), 'input')} left out: {reasons_of(done.reasons)}")
    print(f"{opened.folder}: {done.new:,} new, {done.kept:,} as before, {done.gone:,} gone")
    return opened
