"""Named metrics: what an evaluator gives, how `metrics.json` holds it, and how readers find a value in it.

    {
      "mean": {"rsum": 193.0, "rsum_low": 184.3, "rsum_high": 203.2, ...},   retrieval: the mean of the sources' blocks
      "overall": {"rsum": 93.0, ...},      the pool: all sources searched as one
      "sources": {SOURCE: {...}},          each source searched alone
      "unseen": [SOURCE, ...],             those of them that have no training pairs
      "evaluation_digest": ..., "model_digest": ...,
      "evaluators": {NAME: {"overall": {...}, "sources": {SOURCE: {...}}}}    the others, where there are any
    }

The headline of a model is the mean: a pool of several sources rewards telling sources apart. Releases of before there
was a mean have the pool alone, and are shown with it, by that name. With one source both are the same.

A block is a mapping of names to numbers; the 95% interval of a metric stands beside it as `NAME_low` and `NAME_high`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerovl.evaluation.figures import Figures  # numpy, which the readers of metrics do without

OVERALL = "overall"
MEAN = "mean"
POOL = "pool"  # what people read for OVERALL of retrieval
UNSEEN = "unseen"
RETRIEVAL = "retrieval"  # the evaluator whose blocks stand at the top of metrics.json
KS = (1, 5, 10)  # of the recalls
RECALLS = tuple(f"{direction}_r{k}" for direction in ("i2t", "t2i") for k in KS)  # in the blocks of retrieval
_DIGITS = 4  # after the point, in metrics.json


@dataclass(frozen=True)
class Score:
    """A metric's value with its 95% interval, where it has one; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Unpaired(Score):
    """The difference of two numbers, and why it has no paired interval."""

    why: str = ""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float  # of the data as they are
    low: float
    high: float


Block = Mapping[str, Score]  # by name of the metric


@dataclass(frozen=True)
class Table:
    """Metrics over all sources, of each source alone, and their mean where the evaluator gives one."""

    overall: Block
    sources: Mapping[str, Block]
    mean: Block | None = None
    details: Mapping[str, Any] | None = None  # JSON that report and `details.json` show, and no metric
    figures: Sequence[Figures] = ()  # what metrics count of each item, for `items.parquet`

    def to_json(self) -> dict[str, Any]:
        """Return the keys that `metrics.json` has for an evaluator."""
        sources = {source: _block_to_json(block) for source, block in self.sources.items()}
        mean = {} if self.mean is None else {MEAN: _block_to_json(self.mean)}
        return {**mean, OVERALL: _block_to_json(self.overall), "sources": sources}


@dataclass(frozen=True)
class Headline:
    """The one metric that stands for a model: in titles, in the gate's bounds, in lists of releases."""

    name: str  # in the blocks of retrieval
    label: str
    maximum: float

    @property
    def low(self) -> str:
        """Return the name of the lower end of its interval."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """Return the name of the upper end of its interval."""
        return f"{self.name}_high"

    @property
    def untrained(self) -> str:
        """Return the name of what the same architecture with random weights gets."""
        return f"untrained_{self.name}"

    @property
    def chance(self) -> str:
        """Return the name of what a random order gets."""
        return f"chance_{self.name}"

    @property
    def over_untrained(self) -> str:
        """Return the name of the ratio of the model to an untrained one."""
        return f"{self.name}_over_untrained"


HEADLINE = Headline("rsum", "RSUM", 600.0)
_LEAST_LEARNED = 0.03  # of the way from chance to the best possible


def more_than_chance(chance: float) -> float:
    """Return what the lower end of the headline's interval lies above for a model that learned anything.

    The interval covers the choice of queries alone. Untrained models differ among each other too: a little more than
    chance is asked for, three hundredths of the way to the best possible.
    """
    return chance + _LEAST_LEARNED * (HEADLINE.maximum - chance)


def metrics_json(tables: Mapping[str, Table], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `metrics.json`: retrieval at the top, then `facts`, then the other evaluators' tables."""
    others = {name: table.to_json() for name, table in tables.items() if name != RETRIEVAL}
    return {**tables[RETRIEVAL].to_json(), **facts, **({"evaluators": others} if others else {})}


def details_json(tables: Mapping[str, Table]) -> dict[str, Any]:
    """Return the content of `details.json`: what evaluators found beside their metrics, by name."""
    return {name: dict(table.details) for name, table in tables.items() if table.details is not None}


def further_evaluators(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the evaluators beside retrieval gave, by name; empty for releases of before there were any."""
    return dict(metrics.get("evaluators") or {})


def headline_block(metrics: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return what stands for a model, with its name: the mean over sources, the pool for releases without one."""
    name, key = (MEAN, MEAN) if MEAN in metrics else (POOL, OVERALL)
    block = metrics.get(key)
    return name, block if isinstance(block, Mapping) else {}


def headline_part(metrics: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return as `headline_block`, by the name of the source where there is one alone, which is its own mean."""
    name, block = headline_block(metrics)
    sources = list(metrics.get("sources", {}))
    return (sources[0] if name == MEAN and len(sources) == 1 else name), block


def headline_title(metrics: Mapping[str, Any]) -> str:
    """Return what the headline is of, for titles: "RSUM, mean over 3 sources", or "RSUM, pool of all sources"."""
    sources = len(metrics.get("sources", {}))
    if MEAN not in metrics:
        return f"{HEADLINE.label}, pool of all sources"
    return HEADLINE.label if sources == 1 else f"{HEADLINE.label}, mean over {sources} sources"


def retrieval_blocks(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the blocks of retrieval by the names that people read: "mean", "pool", then each source.

    A source without training pairs is marked as unseen. One source alone is mean and pool too, and the only block.
    """
    sources = sorted(metrics.get("sources", {}).items())
    titled = [(source_title(name, metrics.get(UNSEEN, ())), block) for name, block in sources]
    headline = headline_block(metrics)
    if MEAN not in metrics:
        return [headline, *titled]
    if len(titled) == 1:
        return [(titled[0][0], headline[1])]  # as the title has it
    return [headline, (POOL, metrics.get(OVERALL, {})), *titled]


def source_title(source: str, unseen: Collection[str]) -> str:
    """Return a source's name, marked where the model was not trained on it."""
    return f"{source} (unseen)" if source in unseen else source


def blocks(table: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the blocks of a further evaluator as `metrics.json` has them: "all", then the sources by name."""
    return [("all", table.get(OVERALL, {})), *sorted(table.get("sources", {}).items())]


def metric_names(table: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics in an evaluator's blocks, without the ends of intervals, each once."""
    names = dict.fromkeys(name for _, block in blocks(table) for name in block)
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high")}
    return [name for name in names if name not in ends]


def find(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return the value of EVALUATOR.METRIC, or of EVALUATOR.METRIC@SOURCE; None where there is no such number.

    Without a source retrieval's is that of the mean, and `@pool` that of the pool.
    """
    return value_of(*block_of(metrics, name))


def block_of(metrics: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """Return the block that `find` looks into, empty where there is none, and the metric's name in it."""
    metric, _, source = name.partition("@")
    evaluator, _, metric = metric.partition(".")
    table = metrics if evaluator == RETRIEVAL else further_evaluators(metrics).get(evaluator, {})
    sources = table.get("sources", {})
    if source == POOL and POOL not in sources:
        block = table.get(OVERALL)
    else:
        block = sources.get(source) if source else headline_block(table)[1]
    return block if isinstance(block, Mapping) else {}, metric


def value_of(block: Any, name: str) -> float | None:
    """Return a metric of a block; None where there is no block, no such metric, or it is not a number."""
    value = block.get(name) if isinstance(block, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def known_names(metrics: Mapping[str, Any]) -> list[str]:
    """Return all names that `find` takes for a whole evaluation, without those of single sources."""
    tables = {RETRIEVAL: metrics, **further_evaluators(metrics)}
    return [f"{evaluator}.{name}" for evaluator, table in tables.items() for name in metric_names(table)]


def cell(block: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a metric and its interval as text; empty texts for what the block does not have."""
    value, low, high = (_text(block.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    return value, f"{low} to {high}" if low and high else ""


def _text(value: Any) -> str:
    """A count whole, another number with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else ""


def _block_to_json(block: Block) -> dict[str, float | None]:
    return dict(_entries(block))


def _entries(block: Block) -> Iterator[tuple[str, float | None]]:
    """Names and rounded numbers, each interval behind its value."""
    for name, score in block.items():
        yield name, _rounded(score.value)
        if score.low is not None and score.high is not None:
            yield f"{name}_low", _rounded(score.low)
            yield f"{name}_high", _rounded(score.high)


def _rounded(value: float | None) -> float | None:
    return round(value, _DIGITS) if isinstance(value, float) else value
