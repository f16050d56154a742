"""What a hub is told of a model is what was measured, by the right name."""

from __future__ import annotations

from zerovl.evaluation.hub_results import hub_results


def test_the_whole_of_folds_is_the_mean_over_sources_and_no_pool() -> None:
    """Sources of 10 and 30 have a mean of 20; a pool of both was never searched in folds."""
    sources = {"a": {"rsum": 10.0}, "b": {"rsum": 30.0}}
    folds = {"overall": {"rsum": 20.0}, "sources": sources}
    metrics = {"mean": {"rsum": 5.0}, "overall": {"rsum": 3.0}, "sources": sources, "evaluators": {"folds": folds}}
    found = {its.title: (its.data, its.metrics["RSUM, of 600"]) for its in hub_results(metrics)}
    assert found == {
        "mean over 2 sources": ("mean-of-sources", ("rsum", 5.0)),
        "pool of all sources": ("pool-of-sources", ("rsum", 3.0)),
        "a": ("a", ("rsum", 10.0)),
        "b": ("b", ("rsum", 30.0)),
        "mean over 2 sources, folds": ("mean-of-sources", ("rsum", 20.0)),
        "a, folds": ("a", ("rsum", 10.0)),
        "b, folds": ("b", ("rsum", 30.0)),
    }
