"""Ways to break clean rows: each breaks one rule, by a row of beta/train where nothing else is said."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.validation_manifests import Rows, quarantine
from tests.support.validation_runs import row

BETA = "beta-64"  # the fourth row of beta/train


def null(rows: Rows, number: int = 3) -> None:
    row(rows, number)["sha256"] = None


def no_captions(rows: Rows, number: int = 3) -> None:
    row(rows, number).update(captions=[], caption_ids=[])


def null_caption(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["a green star", None]


def same_key(rows: Rows, number: int = 3) -> None:
    row(rows, number)["key"] = "alpha-1"


def same_image_id(rows: Rows, number: int = 3) -> None:
    row(rows, number)["image_id"] = row(rows, 0)["image_id"]


def same_image_id_across_splits(rows: Rows, number: int = 3) -> None:
    row(rows, number)["image_id"] = row(rows, 0, ("beta", "valid"))["image_id"]


def same_caption_id(rows: Rows, number: int = 3) -> None:
    row(rows, number)["caption_ids"] = [row(rows, 0)["caption_ids"][1], 999_999]


def long_caption(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["word " * 201, "two blue dots"]


def short_caption(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["dots", "two blue dots"]


def blank(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["two blue dots", " \u3000\t"]


def control(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["two \x00 dots", "two blue dots"]


def markup(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["two blue dots", '<a href="x"> <br/> </a>&nbsp;']


def address(rows: Rows, number: int = 3) -> None:
    row(rows, number)["captions"] = ["https://example.org/a.jpg", "two blue dots"]


def small(rows: Rows, number: int = 3) -> None:
    row(rows, number).update(width=640, height=15)


def flat(rows: Rows, number: int = 3) -> None:
    row(rows, number).update(width=64 * 9, height=64)


def quarantined(rows: Rows, number: int = 3) -> None:
    quarantine(row(rows, number), "truncated (17 bytes are missing)")


def duplicates(rows: Rows, number: int = 3, split: tuple[str, str] = ("beta", "train")) -> None:
    for other in range(1, 30):
        row(rows, other, split)["sha256"] = row(rows, 0, split)["sha256"]


def row_a_caption(rows: Rows, number: int = 3) -> None:
    """Ten pictures of a valid split, three rows each, as a table with a row a caption has them."""
    for other in range(30):
        row(rows, other, ("alpha", "valid"))["sha256"] = row(rows, other % 10, ("alpha", "valid"))["sha256"]


def leak(rows: Rows, number: int = 3) -> None:
    """A valid picture of one source in the training split of another one."""
    row(rows, number)["sha256"] = row(rows, 7, ("alpha", "valid"))["sha256"]


def near(rows: Rows, number: int = 3) -> None:
    row(rows, number)["phash"] = row(rows, 7, ("alpha", "valid"))["phash"] ^ 0b101


def empty_source(rows: Rows, number: int = 3) -> None:
    for each in rows["beta", "train"]:
        quarantine(each, "not a picture")


def empty_valid(rows: Rows, number: int = 3) -> None:
    for each in rows["alpha", "valid"]:
        quarantine(each, "not a picture")


@dataclass(frozen=True)
class Change:
    """A change, and what is found of it."""

    break_rows: Callable[..., None]
    rule: str
    level: Literal["hard", "soft"]
    value: float
    key: str  # of the first example
    options: dict[str, Any] = field(default_factory=dict)  # of `validate`, so that this rule alone is broken


BROKEN = [
    Change(null, "complete", "hard", 1, BETA),
    Change(no_captions, "complete", "hard", 1, BETA),
    Change(null_caption, "complete", "hard", 1, BETA),
    Change(same_key, "keys_unique", "hard", 1, "alpha-1"),
    Change(same_image_id, "image_ids_unique", "hard", 1, BETA),
    Change(same_image_id_across_splits, "image_ids_unique", "hard", 1, "beta-91"),
    Change(same_caption_id, "caption_ids_unique", "hard", 1, BETA),
    Change(long_caption, "caption_words_max", "soft", 201, BETA),
    Change(short_caption, "caption_words_min", "soft", 1, BETA, {"min_caption_words": 2}),
    Change(blank, "captions_not_blank", "hard", 1, BETA),
    Change(control, "caption_content", "soft", 1, BETA),
    Change(markup, "caption_content", "soft", 1, BETA),
    Change(address, "caption_content", "soft", 1, BETA),
    Change(small, "image_side", "hard", 15, BETA, {"max_aspect": 100.0}),
    Change(flat, "image_aspect", "soft", 9, BETA),
    Change(quarantined, "broken_fraction", "hard", 1 / 120, BETA, {"max_broken_fraction": 0.005}),
    Change(duplicates, "duplicate_fraction", "soft", 29 / 120, "beta-62"),
    Change(row_a_caption, "one_row_a_picture", "soft", 1, "alpha/valid", {"max_duplicate_fraction": 1.0}),
    Change(leak, "leaked", "hard", 1, "alpha-38"),
    Change(near, "near_leaked_fraction", "soft", 1 / 60, "alpha-38", {"max_near_leaked_fraction": 0.01}),
    Change(empty_source, "sources_have_pairs", "hard", 1, "beta/train", {"max_broken_fraction": 1.0}),
    Change(empty_valid, "sources_have_pairs", "hard", 1, "alpha/valid", {"max_broken_fraction": 1.0}),
]

# Changes that go together in one manifest, with the options for all of them: (changes, options).
GROUPS: list[tuple[list[Callable[..., None]], dict[str, Any]]] = [
    (
        [
            null,
            null_caption,
            same_key,
            same_image_id,
            same_caption_id,
            long_caption,
            short_caption,
            blank,
            control,
            small,
        ],
        {"min_caption_words": 2, "max_aspect": 100.0},
    ),
    (
        [no_captions, same_image_id_across_splits, markup, address, flat, quarantined, leak, near],
        {"max_broken_fraction": 0.005, "max_near_leaked_fraction": 0.01},
    ),
    ([lambda rows, number: duplicates(rows, split=("alpha", "train")), empty_source], {"max_broken_fraction": 1.0}),
]
