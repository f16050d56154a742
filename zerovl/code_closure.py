"""What a stage runs: the modules of `zerovl` that it imports, directly or not, each with a digest of its syntax.

DVC compares the digests for every stage (`zerovl code`), and the fingerprint of a run holds those of `train`.

A module counts for a stage when the stage's own module imports it, at the top or inside a function, directly or
through others; imports for type checkers alone do not count. Pages and style sheets beside a module count with it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from zerovl.kept_syntax import KeptSyntax
from zerovl.syntax import Syntax

PACKAGE = Path(__file__).resolve().parent
STAGES = {
    "demo-data": "zerovl.data.demo.draw",
    "prepare": "zerovl.stages.prepare",
    "validate": "zerovl.stages.validate",
    "train": "zerovl.stages.train",
    "evaluate": "zerovl.stages.evaluate",
    "register": "zerovl.stages.register",
}
_DIGESTS = "it computes the digests"
_WORDS = "what it says to people shapes no output"
_SUPERVISION = "how processes are started, watched and ended shapes no weight"
_PARAMETERS = "the values that it reads are compared themselves, as parameters of the stage"
_SENDS = "it sends and fetches files whose digests are compared, and shapes none"
# Modules that no stage's digest holds, each with the reason.
NOT_COUNTED = {
    "zerovl.code_closure": _DIGESTS,
    "zerovl.cores": _SUPERVISION,
    "zerovl.errors": _WORDS,
    "zerovl.gpu_leases": _SUPERVISION,
    "zerovl.gpu_names": _SUPERVISION,
    "zerovl.heap": _SUPERVISION,
    "zerovl.interpreter": _SUPERVISION,
    "zerovl.kept_syntax": _DIGESTS,
    "zerovl.foreign_folders": _WORDS,
    "zerovl.lease_files": _SUPERVISION,
    "zerovl.log": _WORDS,
    "zerovl.own_gpus": _SUPERVISION,
    "zerovl.syntax": _DIGESTS,
    "zerovl.text_format": _WORDS,
    "zerovl.params": _PARAMETERS,
    **{
        f"zerovl.params.{name}": _PARAMETERS
        for name in (
            "data",
            "evaluate",
            "filters",
            "later",
            "machine",
            "model",
            "register",
            "section",
            "streaming",
            "train",
        )
    },
    "zerovl.params_file": _PARAMETERS,
    "zerovl.processes": _SUPERVISION,
    "zerovl.s3_files": _SENDS,
    "zerovl.shared_folder": "it says who may read what is written, and shapes no byte of it",
    "zerovl.version": _WORDS,
    "zerovl.workspace": "where a stage reads and writes stands in its dependencies and outputs",
    "zerovl.yaml_file": _PARAMETERS,
    "zerovl.distributed.activity": _SUPERVISION,
    "zerovl.distributed.exits": _SUPERVISION,
    "zerovl.distributed.heartbeats": _SUPERVISION,
    "zerovl.distributed.helpers": _SUPERVISION,
    "zerovl.distributed.helper_processes": _SUPERVISION,
    "zerovl.distributed.siblings": _SUPERVISION,
    "zerovl.distributed.watchdog": _SUPERVISION,
    "zerovl.engine.progress": _WORDS,
    "zerovl.evaluation.gate_sources": "it refuses parameters, and shapes nothing of what is accepted",
    "zerovl.tracking": _WORDS,
    **{
        f"zerovl.tracking.{name}": _WORDS
        for name in (
            *("base", "delivery", "facts", "following", "mlflow_runs"),
            *("sender", "tensorboard_files", "trackers", "wandb_runs"),
        )
    },
    "zerovl.training.caption_lengths": _WORDS,
    "zerovl.training.checkpoint_copy": _SENDS,
    "zerovl.training.copied_checkpoints": _SENDS,
    "zerovl.training.data_wait": _WORDS,
    "zerovl.training.launch": _SUPERVISION,
    "zerovl.training.one_rank": _SUPERVISION,
    "zerovl.training.start_block": _WORDS,
    "zerovl.training.uploads": _SENDS,
    "zerovl.training.worker": _SUPERVISION,
}
# Modules that only one stage's digest leaves out.
_SHAPES_NO_WEIGHT = "it scores a training on its way, or tells how it went; the weights stay what they are"
_NAMES_THE_HOLDER = "it names the holder of the alias on the page; scores and ranks stay what they are"
_LOADS_THE_SCORER = "it loads the models of prepare.filters, whose digests the reports hold"
NOT_COUNTED_FOR = {
    "evaluate": dict.fromkeys(
        (
            "zerovl.evaluation.paired",
            "zerovl.evaluation.paired_items",
            *(
                f"zerovl.release.{name}"
                for name in ("current_holder", "gate", "holder", "named_drops", "provenance", "record")
            ),
            *(
                f"zerovl.registry.{name}"
                for name in ("blobs", "cache", "keys", "notes", "records", "registry", "transfer")
            ),
            *(f"zerovl.registry.stores{name}" for name in ("", ".base", ".folder", ".s3")),
        ),
        _NAMES_THE_HOLDER,
    ),
    "prepare": dict.fromkeys(
        (
            *("zerovl.bundle_digests", "zerovl.bundle_files", "zerovl.data.special_tokens", "zerovl.device"),
            "zerovl.whole_folder",
            *(
                f"zerovl.model.{name}"
                for name in (
                    *("architecture", "attention_masks", "blocks", "bundle", "dual_encoder", "encoder", "pooling"),
                    *("inference_layers", "inference_towers", "numpy_families", "numpy_layers", "numpy_towers"),
                    *("preprocess", "tensor_differences", "text", "text_towers", "towers", "undrawn", "weight_files"),
                )
            ),
            *(
                f"zerovl.registry.{name}"
                for name in ("cache", "fetch", "keys", "last_seen", "records", "registry", "release_files", "transfer")
            ),
            *(f"zerovl.registry.stores{name}" for name in ("", ".base", ".folder", ".s3")),
        ),
        _LOADS_THE_SCORER,
    ),
    "train": {
        "zerovl.data.raw": _SHAPES_NO_WEIGHT,
        "zerovl.data.raw.tar_samples": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.bootstrap": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.classification": _SHAPES_NO_WEIGHT,
        **{
            f"zerovl.evaluation.classification.{name}": _SHAPES_NO_WEIGHT
            for name in ("encoding", "linear_probe", "sets", "tars", "templates", "zero_shot")
        },
        "zerovl.evaluation.fold_ranking": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.metrics": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.pool": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.ranking": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.retrieval": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.sharing": _SHAPES_NO_WEIGHT,
        "zerovl.evaluation.two_way": _SHAPES_NO_WEIGHT,
        "zerovl.training.learning": _SHAPES_NO_WEIGHT,
        "zerovl.training.passes": _SHAPES_NO_WEIGHT,
        "zerovl.training.probe_check": _SHAPES_NO_WEIGHT,
        "zerovl.training.valid_folds": _SHAPES_NO_WEIGHT,
        "zerovl.training.valid_sets": _SHAPES_NO_WEIGHT,
    },
}
_BESIDE = (".html", ".css", ".js", ".csv", ".txt")


def digests(stage: str) -> dict[str, str]:
    """Digest by file, relative to the package, of all that counts for a stage; sorted by name."""
    left_out = NOT_COUNTED.keys() | NOT_COUNTED_FOR.get(stage, {}).keys()
    files = {path for module in modules(stage) - left_out for path in _counted(module)}
    found = {path.relative_to(PACKAGE).as_posix(): _digest(path) for path in sorted(files)}
    _modules().keep()
    return found


@cache
def files() -> frozenset[Path]:
    """Return all files that a stage runs, those that no digest holds included."""
    names = set().union(*(modules(stage) for stage in STAGES))
    found = frozenset(path for name in names for path in _counted(name))
    _modules().keep()
    return found


@cache
def digest_of(names: tuple[str, ...]) -> str:
    """Return one digest of some modules alone, without what they import."""
    found = hashlib.sha256("".join(_digest(_file(name)) for name in names).encode()).hexdigest()
    _modules().keep()
    return found


def modules(stage: str) -> set[str]:
    """Names of all modules that a stage's module imports, directly or not, itself included."""
    found: set[str] = set()
    open_ = [*_with_packages(STAGES[stage].split("."))]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += imported(name)
    return found


def _with_packages(parts: list[str]) -> set[str]:
    """A module and the packages around it, which Python runs first; `zerovl` itself is nothing but names."""
    return {".".join(parts[:end]) for end in range(2, len(parts) + 1)}


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of `zerovl` that a module imports itself; the packages around them too, but for `zerovl`."""
    names = _syntax(_file(module)).imports
    found = {module_of(name) for name in names if name == "zerovl" or name.startswith("zerovl.")}
    packages = {package for name in found for package in _with_packages(name.split("."))}
    return frozenset((found | packages) - {module})


@cache
def module_of(name: str) -> str:
    """Return the module that a full name is, or is something inside of: "from a.b import c" names a.b.c."""
    parts = name.split(".")
    return next(".".join(parts[:end]) for end in range(len(parts), 0, -1) if _exists(parts[:end]))


@cache
def _counted(module: str) -> tuple[Path, ...]:
    path = _file(module)
    beside = () if path.parent == PACKAGE else (other for other in path.parent.iterdir() if other.suffix in _BESIDE)
    return (*(() if _syntax(path).is_empty else (path,)), *beside)


@cache
def _digest(path: Path) -> str:
    if path.suffix == ".py":
        return _syntax(path).digest
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _syntax(path: Path) -> Syntax:
    return _modules().of(path)


@cache
def _modules() -> KeptSyntax:
    return KeptSyntax(PACKAGE)


def _exists(parts: list[str]) -> bool:
    place = PACKAGE.parent.joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _file(module: str) -> Path:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
