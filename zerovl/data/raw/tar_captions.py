"""Where the captions of a WebDataset sample are: in its `.txt`, or in its `.json` under one of some keys."""

from __future__ import annotations

from collections.abc import Callable

from zerovl.data.raw.records import is_blank

# (the JSON of a sample, its .txt) -> (captions, why there are none or None)
ReadCaptions = Callable[[dict[str, object], bytes | None], tuple[list[str], str | None]]
ReadText = Callable[[str], list[str]]  # a .txt -> its captions

_BYTE_ORDER_MARK = "\ufeff"  # what Windows' editors begin a text with


def one_caption(text: str) -> list[str]:
    """Return the whole text: alt texts have line breaks in them, and halves of one would be taught as two captions."""
    return [text]


class WholeTexts:
    """Reads a text as `one_caption` does, and knows whether most of them had several lines."""

    def __init__(self) -> None:
        self._texts = self._of_lines = 0

    def __call__(self, text: str) -> list[str]:
        """Return the whole text."""
        self._texts += 1
        self._of_lines += len(caption_a_line(text)) > 1
        return one_caption(text)

    def notes(self) -> list[str]:
        """Return what is to be said of the texts read so far: a line, or nothing."""
        if 2 * self._of_lines <= self._texts:
            return []
        return [
            f"{self._of_lines} of {self._texts} .txt have several lines, each was read as one caption; txt_captions of "
            "the source in data.sources: lines reads each line as a caption of its own, one takes them as they are"
        ]


def caption_a_line(text: str) -> list[str]:
    """Return the lines that say something; a text without any is an empty caption."""
    return [line for line in text.splitlines() if not is_blank(line)] or [""]


def caption_reader(json_caption: str, read_text: ReadText) -> ReadCaptions:
    """Return what finds a sample's captions: under that key of its JSON, where it is empty in the usual places."""
    if json_caption:
        return lambda values, text: _captions_at(json_caption, values)
    return lambda values, text: _captions(values, text, read_text)


def _captions_at(key: str, values: dict[str, object]) -> tuple[list[str], str | None]:
    """Return what lies under one key of the JSON, a text or a list of texts; nothing else is looked at."""
    found = values.get(key)
    texts = found if isinstance(found, list) else [found]
    if texts and all(isinstance(text, str) for text in texts):
        return [str(text) for text in texts], None
    if key in values:
        return [], f"{key!r} of its .json is neither a text nor a list of texts"
    there = f"it has {', '.join(sorted(values)[:20])}"[:200] if values else "there is none, or it is empty"
    return [], f"no {key!r} in its .json ({there}); json_caption of the source names it"


def _captions(values: dict[str, object], text: bytes | None, read_text: ReadText) -> tuple[list[str], str | None]:
    """`captions` of the JSON (as our own shards have them), else the .txt, else `caption` of the JSON.

    A .txt that says nothing is as none where the JSON has a caption; one that is not UTF-8 is damage, and is said.
    """
    several = values.get("captions")
    if isinstance(several, list) and several and all(isinstance(one, str) for one in several):
        return list(several), None
    found = values.get("caption")
    others = found if isinstance(found, list) else [found]
    in_json = [one for one in others if isinstance(one, str)] if all(isinstance(one, str) for one in others) else []
    if text is None:
        return (in_json, None) if in_json else ([], "no caption: neither .txt nor a caption in .json")
    try:
        said = text.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        return [], f"its .txt is not UTF-8 (byte {error.start})"
    if is_blank(said) and not all(map(is_blank, in_json)):
        return in_json, None
    return read_text(said), None
