"""The rules, each as one exact number with a bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from zerovl.data.broken_inputs import BROKEN_CSV, MEANING
from zerovl.data.manifest import Manifest
from zerovl.data.validation import drift
from zerovl.data.validation.repeats import Leaks, Repeats
from zerovl.data.validation.repetition import Repetition
from zerovl.data.validation.several_rows import told
from zerovl.data.validation.statistics import EXAMPLES, Example, RuleFindings, Scan, example
from zerovl.data.validation.tables import look_up
from zerovl.params import ValidateParams
from zerovl.workspace import MANIFEST_FILE, Workspace

_Named = Mapping[int, tuple[str, str]]  # key and origin of rows by their place, as `look_up` gives them


@dataclass(frozen=True)
class Rule:
    """One rule with its value: `minimum <= value <= maximum`; a value of None means that there is nothing to judge."""

    name: str
    level: Literal["hard", "soft"]
    value: float | None
    message: str
    fix: str
    minimum: float | None = None
    maximum: float | None = None
    examples: list[Example] = field(default_factory=list)

    @property
    def bound(self) -> str:
        """The bound as it is shown: ">= 16"."""
        return f">= {self.minimum:g}" if self.minimum is not None else f"<= {self.maximum:g}"


def judge(
    manifest: Manifest, scan: Scan, found: Repetition, before: drift.Statistics | None, settings: ValidateParams
) -> list[Rule]:
    """Return all rules, in the order in which the page shows them."""
    return [
        *_inputs(manifest, scan, settings),
        *_rows(scan, settings),
        *_repetition(manifest, scan, found, settings),
        *_drift(scan, before, settings),
    ]


def _inputs(manifest: Manifest, scan: Scan, settings: ValidateParams) -> Iterator[Rule]:
    wrong = [
        example(f"{source}/{split}", MANIFEST_FILE, text) for source, split, text in _disagreements(manifest, scan)
    ]
    yield Rule(
        "manifest_counts",
        "hard",
        len(wrong),
        f"{len(wrong)} splits or shards hold other numbers of rows than manifest.json says",
        "run `dvc repro -f prepare`",
        maximum=0,
        examples=wrong[:EXAMPLES],
    )
    broken_list = Workspace().validation_report / BROKEN_CSV  # as seen from the project
    # A valid split without any input is one that the source does not have.
    empty = [
        (source, split)
        for (source, split), values in sorted(scan.splits.items())
        if not values.pairs and (split == "train" or values.broken or scan.left_out.get(source, {}).get(split))
    ]
    if not any(statistics.pairs for statistics in scan.splits.values()) and not empty:
        empty = sorted(scan.splits) or [("all sources", "all splits")]
    yield Rule(
        "sources_have_pairs",
        "hard",
        len(empty),
        f"{len(empty)} splits without a usable pair",
        f"give the split readable pairs (reasons: {broken_list}), loosen prepare.filters where those left all out, or "
        "leave the split out: splits of the source in data.sources",
        maximum=0,
        examples=[example(f"{source}/{split}", None, "no usable pair") for source, split in empty[:EXAMPLES]],
    )
    broken = sum(statistics.broken for statistics in scan.splits.values())
    yield Rule(
        "broken_fraction",
        "hard",
        broken / scan.rows if scan.rows else None,
        f"{broken} of {scan.rows} inputs are quarantined ({MEANING})",
        f"fix the inputs listed in {broken_list}, or raise validate.max_broken_fraction",
        maximum=settings.max_broken_fraction,
        examples=scan.note("broken_fraction").examples,
    )


def _disagreements(manifest: Manifest, scan: Scan) -> Iterator[tuple[str, str, str]]:
    for (source, split), info in sorted(manifest.splits.items()):
        counted = scan.splits[source, split]
        for name in ("pairs", "captions", "broken"):
            if getattr(counted, name) != getattr(info, name):
                yield source, split, f"{name}: {getattr(counted, name)} in the table, {getattr(info, name)} listed"
        for shard in info.shards:
            pairs = scan.shards[shard.path].pairs if shard.path in scan.shards else 0
            if pairs != shard.samples:
                yield source, split, f"{shard.path}: {pairs} rows in the table, {shard.samples} samples listed"


def _rows(scan: Scan, settings: ValidateParams) -> Iterator[Rule]:
    def counted(name: str, level: Literal["hard", "soft"], text: str, fix: str) -> Rule:
        findings = scan.note(name)
        return Rule(name, level, findings.count, f"{findings.count} {text}", fix, maximum=0, examples=findings.examples)

    def limited(
        name: str, level: Literal["hard", "soft"], text: str, key: str, low: float | None, high: float | None
    ) -> Rule:
        findings: RuleFindings = scan.note(name)
        fix = (
            f"leave them out: set prepare.filters.{key}: {high if low is None else low:g} in params.yaml and run `dvc "
            f"repro`; or fix them at their origin, or change validate.{key}"
        )
        return Rule(name, level, findings.extreme, f"{findings.count} {text}", fix, low, high, findings.examples)

    yield counted("complete", "hard", "values missing in usable rows", "run `dvc repro -f prepare`")
    yield counted("captions_not_blank", "hard", "blank captions", "give these pictures a caption, or remove them")
    yield counted(
        "caption_content",
        "soft",
        "captions with control characters, or of nothing but markup or addresses",
        "clean the captions at their origin",
    )
    shortest, longest = settings.min_caption_words, settings.max_caption_words
    yield limited("caption_words_min", "soft", "captions are shorter", "min_caption_words", shortest, None)
    yield limited("caption_words_max", "soft", "captions are longer", "max_caption_words", None, longest)
    yield limited("image_side", "hard", "pictures have a shorter side", "min_side", settings.min_side, None)
    yield limited("image_aspect", "soft", "pictures are longer or flatter", "max_aspect", None, settings.max_aspect)


def _repetition(manifest: Manifest, scan: Scan, found: Repetition, settings: ValidateParams) -> Iterator[Rule]:
    near = found.near.examples(EXAMPLES)
    pairs = [
        pair
        for part in (found.keys, found.image_ids, found.caption_ids, found.pictures, found.leaks)
        for pair in part.examples
    ]
    named = look_up(manifest, {each for pair in pairs for each in pair} | {e for each in near for e in each[:2]})
    yield _unique("keys_unique", found.keys, "keys", named)
    yield _unique("image_ids_unique", found.image_ids, "image ids within a source", named)
    yield _unique("caption_ids_unique", found.caption_ids, "caption ids within a source", named)
    yield from _copies(scan, found, settings, named)
    yield from _leaks(scan, found, settings, named, near)


def _alike(part: Repeats | Leaks, text: str, named: _Named) -> list[Example]:
    """Examples of rows that are like another one, each with that one's name behind `text`."""
    return [example(*named[one], f"{text} {' of '.join(filter(None, named[other]))}") for one, other in part.examples]


def _unique(name: str, repeats: Repeats, text: str, named: _Named) -> Rule:
    return Rule(
        name,
        "hard",
        repeats.count,
        f"{repeats.count} {text} repeated",
        "give every sample ids of its own in the raw data, then run `dvc repro`",
        maximum=0,
        examples=_alike(repeats, "same as", named),
    )


def _copies(scan: Scan, found: Repetition, settings: ValidateParams, named: _Named) -> Iterator[Rule]:
    rows = sum(statistics.pairs for statistics in scan.splits.values())
    copies = "the copies"
    if found.several:  # their captions are needed; the rule below says how rows become one picture
        copies = "copies that one_row_a_picture does not name"
    yield Rule(
        "duplicate_fraction",
        "soft",
        found.pictures.count / rows if rows else None,
        f"{found.pictures.count} of {rows} pictures have the bytes of another one",
        f"leave {copies} out by prepare.filters.duplicates, or raise validate.max_duplicate_fraction",
        maximum=settings.max_duplicate_fraction,
        examples=_alike(found.pictures, "same bytes as", named),
    )
    yield Rule(
        "one_row_a_picture",
        "soft",
        len(found.several),
        told(found.several),
        "prepare keeps rows apart where equal_pictures is separate, tars lie in_place, or a picture has more than 50 "
        "rows; unless it is one placeholder, set equal_pictures: together (and tars: packed) for the source in "
        "data.sources, which makes one picture with several captions of rows whose pictures have equal bytes "
        "(data/README.md), then run `dvc repro`",
        maximum=0,
        examples=[example(its.split, MANIFEST_FILE, str(its)) for its in found.several[:EXAMPLES]],
    )


def _leaks(
    scan: Scan, found: Repetition, settings: ValidateParams, named: _Named, near: Sequence[tuple[int, int, int]]
) -> Iterator[Rule]:
    valid = sum(statistics.pairs for (_, split), statistics in scan.splits.items() if split == "valid")
    yield Rule(
        "leaked",
        "hard",
        found.leaks.count,
        f"{found.leaks.count} of {valid} valid pictures are in train too",
        "set prepare.filters.leaks: exact in params.yaml, so that train loses them, and run `dvc repro`; or remove "
        "them from one of the two splits, or raise validate.max_leaked",
        maximum=settings.max_leaked,
        examples=_alike(found.leaks, "same bytes as train's", named),
    )
    yield Rule(
        "near_leaked_fraction",
        "soft",
        found.near.count / valid if valid else None,
        f"{found.near.count} of {valid} valid pictures look like one in train "
        f"(at most {settings.near_distance} of 64 bits of the perceptual hash differ)",
        "look at the examples; for true copies set prepare.filters.leaks to near, or raise "
        "validate.max_near_leaked_fraction",
        maximum=settings.max_near_leaked_fraction,
        examples=[
            example(*named[one], f"{bits} bits from train's {' of '.join(filter(None, named[other]))}")
            for one, other, bits in near
        ],
    )


def _drift(scan: Scan, before: drift.Statistics | None, settings: ValidateParams) -> Iterator[Rule]:
    first = "first validation: nothing to compare with"
    alone = first if before is None else "no source and split stands in both: nothing to compare with"
    fix = "nothing, if the change is meant; this data becomes the new reference once it has passed"
    changed = drift.compare(before, statistics(scan)) if before is not None else drift.Drift()
    for name in drift.MEASURES:
        change = changed.changes.get(name)
        value, text = (change.value, change.text) if change else (None, alone)
        yield Rule(name, "soft", value, text, fix, maximum=settings.max_drift)
    moved = [f"new: {name}" for name in changed.appeared] + [f"gone: {name}" for name in changed.disappeared]
    text = first if before is None else ", ".join(moved) or "the same sources and splits"
    yield Rule("drift_sources", "soft", None if before is None else len(moved), text, fix, maximum=0)


def statistics(scan: Scan) -> dict[str, dict[str, Any]]:
    """Return source -> split -> counts and distributions."""
    result: dict[str, dict[str, Any]] = {}
    for (source, split), values in sorted(scan.splits.items()):
        result.setdefault(source, {})[split] = values.summary()
    return result
