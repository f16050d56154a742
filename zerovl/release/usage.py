"""The Python that loads a release, with a caption of its own sample, as its card and `register` show it."""

from __future__ import annotations

import json
from collections.abc import Collection

from zerovl.errors import ZeroVLError
from zerovl.params import RegisterParams
from zerovl.release.sample_pictures import pictures

NO_SAMPLE = "two skiers on a slope"  # the caption where a release has no sample


def usage_lines(section: RegisterParams, label: str, caption: str) -> str:
    """Return the Python that loads a release by its alias or number, and compares a caption with pictures."""
    return (
        "import zerovl\n"
        f'model = zerovl.load("{section.store.rstrip("/")}/{section.name}@{label}")\n'
        f'scores = model.{_encoded(caption)} @ model.encode_image(["a.jpg", "b.jpg"]).T'
    )


def example_caption(pairs: bytes, origin: str) -> str:
    """Return the shortest caption of a sample's tar, the first of them; `NO_SAMPLE` where it has none."""
    try:
        captions = [caption for picture in pictures(pairs, origin) for caption in picture.captions]
    except ZeroVLError:  # the check before the promotion says it
        return NO_SAMPLE
    return min(captions, key=len, default=NO_SAMPLE)


def without_captions(card: bytes, captions: Collection[str]) -> bytes:
    """Return a card whose lines of Python have none of these captions: what is withdrawn leaves the card too."""
    text = card.decode()
    for caption in captions:
        text = text.replace(_encoded(caption), _encoded(NO_SAMPLE))
    return text.encode()


def _encoded(caption: str) -> str:
    return f"encode_text([{json.dumps(caption, ensure_ascii=False)}])"
