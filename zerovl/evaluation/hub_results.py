"""The scores of a release in the hub's own form: `model-index`, as https://huggingface.co/docs/hub/model-cards has it.

A result is a task, a set of data and metrics, and only what `metrics.json` has a number for is one. The hub has no name
for retrieval among pictures, so that task has one of its own and never becomes the `pipeline_tag`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zerovl.evaluation.metrics import HEADLINE, MEAN, OVERALL, UNSEEN, further_evaluators, source_title, value_of

ZERO_SHOT = "zero-shot-image-classification"  # the hub's
_CLASSIFICATION = "image-classification"  # the hub's
_RETRIEVAL = "image-text-retrieval"
# By name in metrics.json: the hub's type of the metric, and what people read.
_OF_RETRIEVAL = {
    HEADLINE.name: (HEADLINE.name, f"{HEADLINE.label}, of {HEADLINE.maximum:.0f}"),
    **{
        f"{short}_r{k}": ("recall", f"{direction} R@{k}, percent")
        for short, direction in (("i2t", "image to text"), ("t2i", "text to image"))
        for k in (1, 5, 10)
    },
}
_OF_ZERO_SHOT = {
    "top1": ("accuracy", "top-1, percent"),
    "top5": ("accuracy", "top-5, percent"),
    "mean_class": ("accuracy", "top-1, mean over classes, percent"),
}
_OF_PROBES = {
    "probe_top1": ("accuracy", "linear probe, top-1, percent"),
    "paper_probe_top1": ("accuracy", "linear probe by LARS, top-1, percent"),
    "paper_probe_augmented_top1": ("accuracy", "linear probe by LARS with augmentation, top-1, percent"),
}
_TASKS = {_RETRIEVAL: _OF_RETRIEVAL, ZERO_SHOT: _OF_ZERO_SHOT, _CLASSIFICATION: _OF_PROBES}


@dataclass(frozen=True)
class HubResult:
    """What was measured on one set of data for one task."""

    task: str
    data: str  # what the set is called
    title: str  # what people read
    split: str
    metrics: Mapping[str, tuple[str, float]]  # what people read -> the hub's type, value

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `results`."""
        return {
            "task": {"type": self.task, "name": self.task.replace("-", " ")},
            "dataset": {"type": self.data, "name": self.title, "split": self.split},
            "metrics": [{"type": kind, "name": name, "value": value} for name, (kind, value) in self.metrics.items()],
        }


def hub_results(metrics: Mapping[str, Any]) -> list[HubResult]:
    """Return the results that `metrics.json` has: retrieval, its headline first, then each further evaluator's."""
    sums = {"mean": metrics.get(MEAN, {}), "pool": metrics.get(OVERALL, {})}
    found = list(_of_retrieval(sums, metrics.get("sources", {}), metrics.get(UNSEEN, ()), ""))
    for name, table in further_evaluators(metrics).items():
        if _known(_RETRIEVAL, table.get(OVERALL, {})):  # folds of it, whose whole is the mean over sources
            found += _of_retrieval({"mean": table[OVERALL]}, table.get("sources", {}), (), f", {name}")
        found += [
            HubResult(task, name, name, "test", _known(task, table.get(OVERALL, {})))
            for task in (ZERO_SHOT, _CLASSIFICATION)
        ]
    return [result for result in found if result.metrics]


def pipeline_tag(results: list[HubResult]) -> str | None:
    """Return the hub's task that was measured and that the model does as it is, None where there is none."""
    return ZERO_SHOT if any(result.task == ZERO_SHOT for result in results) else None


def results_table(results: list[HubResult]) -> str:
    """Return the results as a table of Markdown."""
    lines = ["| data | metric | value |", "|---|---|---:|"]
    for result in results:
        title = result.title.replace("|", "\\|")  # sources are called as people like
        lines += [f"| {title} | {name} | {value:g} |" for name, (_, value) in result.metrics.items()]
    return "\n".join(lines)


def _of_retrieval(
    sums: Mapping[str, Any], sources: Mapping[str, Any], unseen: Collection[str], addition: str
) -> Iterator[HubResult]:
    """Give the sums, "mean" and "pool", which are the source where there is one alone, then each source."""
    titles = {"mean": f"mean over {len(sources)} sources", "pool": "pool of all sources"}
    for kind, block in sums.items() if len(sources) != 1 else ():
        title = f"{titles[kind]}{addition}"
        yield HubResult(_RETRIEVAL, f"{kind}-of-sources", title, "valid", _known(_RETRIEVAL, block))
    for source, block in sorted(sources.items()):
        title = f"{source_title(source, unseen)}{addition}"
        yield HubResult(_RETRIEVAL, source, title, "valid", _known(_RETRIEVAL, block))


def _known(task: str, block: Any) -> dict[str, tuple[str, float]]:
    return dict(_entries(task, block))


def _entries(task: str, block: Any) -> Iterator[tuple[str, tuple[str, float]]]:
    for metric, (kind, title) in _TASKS[task].items():
        value = value_of(block, metric)
        if value is not None:
            yield title, (kind, value)
