"""The flow `reproduce`: makes a release again and compares. `python -m flows.reproduce --help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.states import Failed
from pydantic import Field

from flows import command, forms, pipeline, stages
from flows.outbox import Page, outbox
from flows.runtime import failure_log
from flows.runtime.cancellation import Cancellable
from flows.runtime.checkout import Checkout
from flows.runtime.errors import FlowError
from flows.runtime.paths import Paths
from flows.stores import user_registry
from zerovl import params_file
from zerovl.evaluation.metrics import HEADLINE, MEAN, OVERALL, POOL, headline_block, headline_title
from zerovl.files import read_json
from zerovl.registry import cache, release_files
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.release.provenance import why_not_again
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml


class CannotReproduceError(FlowError):
    """A release cannot be made again: it does not say enough of its origin, or this machine lacks it."""


@dataclass(frozen=True)
class Comparison:
    """A release beside what was made again."""

    data_equal: bool
    largest_difference: float | None  # over all weights; None where names or shapes differ
    score: tuple[float, float]  # the headline metric: released, made again
    tolerance: float

    @property
    def verdict(self) -> str:
        """Return "equal", "within tolerance" or "different"."""
        if self.data_equal and self.largest_difference == 0.0 and self.score[0] == self.score[1]:
            return "equal"
        near = self.largest_difference is not None and abs(self.score[0] - self.score[1]) <= self.tolerance
        return "within tolerance" if self.data_equal and near else "different"


@flow(name="reproduce")
def reproduce(
    release: forms.Release,
    tolerance: Annotated[float, Field(ge=0)] = 1.0,
) -> State[Any] | dict[str, Any]:
    """Check out a release's commit and data, train and evaluate again from nothing, compare weights and metrics.

    Args:
        release: NAME@VERSION or NAME@ALIAS
        tolerance: difference of RSUM that still counts as the same model
    """
    with Cancellable("run it again, from nothing") as ended:
        failure_log.install()
        registry = user_registry(Paths.here())
        version = registry.resolve(release)
        try:
            commit = commit_of(version)
        except CannotReproduceError as error:
            return Failed(message=str(error))
        checkout = pipeline.open_checkout(pipeline.find_commit(commit))
        start_from_nothing(checkout, version)
        init_from = params_file.load(checkout.path / "params.yaml").train.init_from
        with outbox(checkout.kept_reports):
            stages.prepare(checkout, checkout.start_file(init_from))
            stages.validate(checkout)
            stages.train_again(checkout)
            stages.evaluate_again(checkout)
            compared = compare(registry, version, Workspace(checkout.path), tolerance)
            stages.show([Page("reproduced", f"{release} made again: {compared.verdict}", render(version, compared))])
            checkout.keep_reports()
        get_run_logger().info("%s made again: %s", release, compared.verdict)
        checkout.remove()
        return {"release": release, "verdict": compared.verdict, "largest_difference": compared.largest_difference}
    return ended.state


def commit_of(version: Version) -> str:
    """Return the commit that a release was made from; raises where that is not enough to make it again."""
    if why := why_not_again(version.provenance):
        raise CannotReproduceError(f"{version.reference} {why}")
    return str(version.provenance["git"]["commit"])


def check(release: str, **_others: object) -> None:
    """Raise where there is no such release, or it cannot be made again."""
    commit_of(user_registry(Paths.here()).resolve(release))


def start_from_nothing(checkout: Checkout, version: Version) -> None:
    """Give the checkout run state of its own, so that nothing is resumed; its parameters must be the release's."""
    runs = checkout.path / "runs"
    if runs.is_symlink():
        runs.unlink()
        runs.mkdir()
    if read_yaml(checkout.path / "params.yaml") != version.provenance["params"]:
        raise CannotReproduceError(
            f"{version.reference}: params.yaml of its commit differs from the parameters that the release names"
        )


def compare(registry: Registry, version: Version, workspace: Workspace, tolerance: float) -> Comparison:
    """Compare weights and metrics of the release with those in the workspace."""
    manifest = read_json(workspace.manifest_file)
    of, released_block = headline_block(version.metrics)
    metrics = read_json(workspace.evaluation_metrics)
    made_again = metrics[OVERALL] if of == POOL else metrics[MEAN]  # like with like
    with cache.held(registry.store, version) as released:
        difference = _difference(released / release_files.WEIGHTS, workspace.model / release_files.WEIGHTS)
    return Comparison(
        data_equal=manifest["digest"] == version.provenance.get("data_manifest"),
        largest_difference=difference,
        score=(released_block[HEADLINE.name], made_again[HEADLINE.name]),
        tolerance=tolerance,
    )


def render(version: Version, compared: Comparison) -> str:
    """Return the markdown that the UI shows."""
    difference = compared.largest_difference
    data = str(version.provenance.get("data_manifest"))[:12]
    weights = "names or shapes differ" if difference is None else f"largest difference {difference:.3g}"
    return "\n".join(
        [
            f"## {version.reference} made again: {compared.verdict}",
            "",
            "| | released | made again |",
            "|---|---|---|",
            f"| data | {data} | {'equal' if compared.data_equal else 'DIFFERENT'} |",
            f"| weights | {version.files[release_files.WEIGHTS].sha256[:12]} | {weights} |",
            f"| {headline_title(version.metrics)} | {compared.score[0]:.2f} | {compared.score[1]:.2f} |",
            "",
            f"Tolerance: {compared.tolerance:g} {HEADLINE.label}. Bit-equal weights need CPUs, the same kind of "
            "machine and the same number of ranks.",
        ]
    )


def _difference(released: Path, again: Path) -> float | None:
    from safetensors.torch import load_file

    first, second = load_file(released), load_file(again)
    if {name: tensor.shape for name, tensor in first.items()} != {
        name: tensor.shape for name, tensor in second.items()
    }:
        return None
    return max((float((first[name].double() - second[name].double()).abs().max()) for name in first), default=0.0)


if __name__ == "__main__":
    command.main(reproduce, check)
