"""What is new in a checkout: its data, code and parameters compared with the releases that were made before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.runtime import code_digests
from flows.runtime.checkout import STARTS
from flows.runtime.git import CheckoutError, git
from flows.runtime.paths import Paths
from zerovl import params, params_file
from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams, Params
from zerovl.registry.records import Move, Version
from zerovl.yaml_file import read_yaml, yaml_mapping

LOOKED_AT = 20  # newest releases
_NAMED = 3  # files, where more have changed
# What a release is made from, and git knows; dvc.lock is made by a run.
_MADE_FROM = (
    *("data", "dvc.yaml", "zerovl", ":(glob)**/*.dvc"),
    *(":(exclude,glob)**/dvc.lock", ":(exclude,glob)**/.gitignore", ":(exclude)data/README.md", f":(exclude){STARTS}"),
)
_OF_THE_BYTES = ("md5", "size", "nfiles")  # in an output of a `.dvc` file
# Of the section `train`: what a run from production sets each time, and what older releases name there.
_NOT_COMPARED = {"init_from", *MachineParams.model_fields}


def imports(checkout: Path) -> list[str]:
    """Return the paths of the `.dvc` files that `dvc update` can refresh: those of import-url and import."""
    return [path for path in git(checkout, "ls-files", "*.dvc").splitlines() if read_yaml(checkout / path).get("deps")]


def take_over_digests(checkout: Path, path: str) -> None:
    """Give an import whose bytes nobody has listed the digests that a version of its file has, of any branch.

    `dvc import-url --no-download` leaves a `.dvc` file with ETags alone, and `dvc update` downloads everything for it,
    on each run again. A run before has committed the digests of the same objects on its branch.

    Args:
        path: of a `.dvc` file that was just compared with its source (`dvc update --no-download`).
    """
    file = checkout / path
    ours = _import_without_digests(read_yaml(file))
    commits = git(checkout, "log", "--all", "--format=%H", "--diff-filter=AM", "--", path).splitlines()
    for commit in commits:
        text = git(checkout, "show", f"{commit}:{path}")
        try:
            content = yaml_mapping(text, f"{path} of {commit}")
        except ZeroVLError:
            continue  # a commit stays as it is: nobody can fix it, and others may have what it lacks
        if has_digests(content) and _import_without_digests(content) == ours:
            file.write_text(f"{text}\n", encoding="utf-8")
            return


def has_digests(content: Mapping[str, Any]) -> bool:
    """Return whether a `.dvc` file knows its data by content."""
    return all("md5" in out or "files" in out for out in content["outs"])


def _import_without_digests(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `.dvc` file says of source and place."""
    outs = [{key: out[key] for key in out if key not in _OF_THE_BYTES} for out in content["outs"]]
    return {**content, "md5": None, "outs": outs}


def unwatched_sources(checkout: Path, settings: Params) -> list[str]:
    """Return the raw data outside the checkout (for example s3://), where neither git nor DVC sees a change."""
    raw = settings.data.raw
    places = [source.path for source in settings.data.sources] or [raw]
    return [place for place in places if not _inside(checkout, raw, place)]


def made_before(checkout: Path, settings: Params, versions: list[Version]) -> Version | None:
    """Return the newest release of the same data, code and parameters as the checkout has now, if any.

    `train.init_from` does not count: a run that starts from production differs in it every time.
    """
    for version in _of_same_parameters(settings, versions):
        state = version.provenance.get("git") or {}
        if not state.get("dirty") and _other_files(checkout, str(state.get("commit"))) == []:
            return version
    return None


def why_new(checkout: Path, settings: Params, versions: list[Version]) -> str:
    """Return what `made_before` found new, against the newest release of the same parameters where there is one."""
    newest = next(_of_same_parameters(settings, versions), None)
    if newest is None:
        return f"none of the newest {LOOKED_AT} releases has the same parameters"
    state = newest.provenance.get("git") or {}
    commit = str(state.get("commit"))
    if state.get("dirty"):
        return (
            f"{newest.reference} has the same parameters, but was made with files that differ from commit "
            f"{commit[:12]}, so nobody knows whether its data and code are those of now; commit before `dvc repro`, "
            "and a release can be compared"
        )
    files = _other_files(checkout, commit)
    if files is None:
        return f"{newest.reference} has the same parameters, but this checkout does not have its commit {commit[:12]}"
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return f"{newest.reference} has the same parameters, but {', '.join(files[:_NAMED])}{more} changed since"


def _of_same_parameters(settings: Params, versions: list[Version]) -> Iterator[Version]:
    ours = _trained(params.as_dict(settings))
    return (each for each in versions[:LOOKED_AT] if _trained(each.provenance.get("params", {})) == ours)


def unfinished(paths: Paths, version: Version, moves: list[Move] | None) -> str:
    """Return what a run has still to do about a release of the same data, code and parameters; "" where nothing.

    Args:
        moves: of the alias that the run is to move; None where it is to move none.
    """
    run = version.by.removeprefix("run ")
    if run != version.by and (paths.checkouts / run).is_dir():
        return f"{version.reference} was registered by run {run}, which has not come to its end"
    passed = bool((version.verdict or {}).get("passed"))
    if moves is not None and passed and all(move.version != version.number for move in moves):
        return f"{version.reference} passed the gate and never had the alias"
    return ""


def _trained(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a model depends on.

    What a release of before did not know yet is what a file without it means, and `train` had then what is now in
    `machine`.
    """
    known = params_file.merge(params.as_dict(Params()), params_file.with_older_meaning(sections))
    kept = {name: section for name, section in known.items() if name not in ("register", "machine")}
    kept["train"] = {name: value for name, value in known["train"].items() if name not in _NOT_COMPARED}
    return kept


def _other_files(checkout: Path, commit: str) -> list[str] | None:
    """Return the files that differ from a commit, of those that a release is made from; None where git lacks it.

    Code counts as `dvc repro` takes it: what a stage runs, without comments.
    """
    try:
        git(checkout, "cat-file", "-e", f"{commit}^{{commit}}")
    except CheckoutError:
        return None  # made elsewhere, from a history that this machine does not have
    files = git(checkout, "diff", "--name-only", commit, "--", *_MADE_FROM).splitlines()
    if not any(_is_code(file) for file in files):
        return files
    run_otherwise = code_digests.unlike(checkout, commit)
    return [file for file in files if not _is_code(file) or run_otherwise is None or file in run_otherwise]


def _is_code(file: str) -> bool:
    return file.startswith("zerovl/")


def _inside(checkout: Path, raw: str, place: str) -> bool:
    """Return whether `place` is in `data.raw`, and that in the checkout."""
    if "://" in place or not (checkout / raw).is_relative_to(checkout):
        return False
    return (checkout / place).is_relative_to(checkout / raw)
