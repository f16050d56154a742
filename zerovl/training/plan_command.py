"""`zerovl plan`: put a plan together and show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from zerovl import params as parameters
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.params import Params
from zerovl.training import plan as planning
from zerovl.training.calibrate import calibrate
from zerovl.training.footprint import footprint
from zerovl.training.memory import MARGIN, show_size
from zerovl.training.plan import Plan, Speed
from zerovl.training.run import check_ranks
from zerovl.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """As given on the command line; None where not given."""

    ranks: int | None = None
    gpu: str | None = None
    gpu_memory: str | None = None
    pairs: int | None = None
    measure: bool = False
    json: Path | None = None


def run(params_path: str, options: Options, workspace: Workspace) -> None:
    """Print the plan of `params_path`, and write it where --json says."""
    plan = make_plan(params_path, options, workspace)
    print(show(parameters.load(params_path), plan))
    if options.json:
        write_json(options.json, plan.as_dict())


def make_plan(params_path: str, options: Options, workspace: Workspace) -> Plan:
    """Raises `ZeroVLError` where the parameters or options contradict each other or this machine."""
    params = parameters.load(params_path)
    target = planning.find_target(params, options.ranks, options.gpu, options.gpu_memory)
    check_ranks(params, target.world_size)
    if options.measure and target.kind == "cuda" and not torch.cuda.is_available():
        raise ZeroVLError("--measure runs steps on this machine, which has no GPU; leave it out, or run it on the GPUs")
    model = planning.imagine_model(params, target, workspace)
    suggestion = planning.suggest(params, target, model)
    split = planning.planned_split(params, target, model, suggestion)
    pairs = planning.training_pairs(workspace, options.pairs)
    steps = planning.count_steps(params, pairs)
    work = planning.work(params, model.flops, split)
    calibration = calibrate(params_path, split, workspace) if options.measure else None
    return Plan(
        target=target,
        pairs=pairs,
        steps=steps,
        split=split,
        parameters=model.parameters,
        work=work,
        memory=footprint(params, model.size, model.activations, split, target.kind),
        unseen_bytes=calibration.unseen_bytes if calibration else None,
        wire=planning.wire(params, model.parameters, split),
        suggestion=suggestion,
        assumed=planning.assumed_speed(target, work, split, steps),
        measured=planning.measured_speed(target, calibration, params, split, steps) if calibration else None,
        calibration=calibration,
        notes=[*model.notes, *_notes(params, options, pairs, split.world_size)],
    )


def _notes(params: Params, options: Options, pairs: int | None, ranks: int) -> list[str]:
    notes = []
    if pairs is None:
        notes.append("no manifest here: steps and hours are not known; run `dvc repro prepare`, or say --pairs N")
    if params.train.compile:
        notes.append("train.compile is not planned: compiled towers mostly take less memory and time")
    if options.measure and ranks > 1:
        notes.append("measured with one rank: sending over the wire and ranks that share this machine come on top")
    return notes


def show(params: Params, plan: Plan) -> str:
    """The plan as aligned text."""
    rows = [*_run_rows(params, plan), *_memory_rows(params, plan), *_speed_rows(plan)]
    rows += [("note", note) for note in plan.notes]
    names = ["" if index and rows[index - 1][0] == name else name for index, (name, _) in enumerate(rows)]
    return "\n".join(f"  {name:<12} {text}" for name, (_, text) in zip(names, rows, strict=True))


def _run_rows(params: Params, plan: Plan) -> list[tuple[str, str]]:
    split, work, parts = plan.split, plan.work, plan.parameters
    train = params.train
    steps = "not known" if plan.steps is None else f"{plan.steps:,} of {split.batch:,} pairs"
    if plan.pairs:
        steps += f", {plan.pairs / split.batch:,.1f} an epoch, {train.epochs:g} epochs over {plan.pairs:,} pairs"
    layout = "one pass"
    if train.step == "decoupled":
        layout = f"{split.micro_batches} micro-batches of {split.micro_batch}, {split.kept_graphs} with kept graphs"
    passes = f"{work.planned / work.forward:.2f} forward passes"
    wire = plan.wire
    return [
        ("target", f"{plan.target.name}, {show_size(plan.target.memory)} a rank, {train.precision}"),
        ("steps", steps),
        ("batch", f"{split.world_size} x {split.local:,} pairs, {train.step}: {layout}"),
        (
            "parameters",
            f"{parts.total / 1e6:.1f}M: image tower {parts.image_tower / 1e6:.1f}M, text tower "
            f"{parts.text_tower / 1e6:.1f}M, projections {parts.projections / 1e6:.2f}M; "
            f"{parts.learned / 1e6:.1f}M learn",
        ),
        (
            "FLOPs a pair",
            f"forward {_giga(work.forward)}, plain step {_giga(work.plain)}, planned step {_giga(work.planned)} "
            f"({passes}), loss {_giga(work.loss)}",
        ),
        (
            "wire a step",
            "nothing: one rank"
            if split.world_size == 1
            else f"{show_size(wire.total)} to each rank: captions {show_size(wire.embeddings)}, log-sum-exps "
            f"{show_size(wire.log_sum_exps)}, loss gradient {show_size(wire.loss_gradient)}, gradients "
            f"{show_size(wire.gradients)}",
        ),
    ]


def _memory_rows(params: Params, plan: Plan) -> list[tuple[str, str]]:
    text = str(plan.memory)
    if plan.unseen_bytes is not None:
        text += f"; {show_size(plan.unseen_bytes)} of libraries and workspaces on top (measured)"
    elif plan.target.kind == "cpu":
        text += "; PyTorch's own come on top (--measure counts them)"
    fits = plan.peak_memory <= MARGIN[plan.target.kind] * plan.target.memory
    verdict = "fits" if fits else "DOES NOT FIT"
    rows = [("memory", text), ("memory", f"{verdict} in {show_size(plan.target.memory)}")]
    best = plan.suggestion
    if params.train.step == "plain":
        if not fits:
            rows.append(("suggested", "train.step: decoupled, whose memory does not grow with the batch"))
    elif best is None:
        rows.append(
            (
                "suggested",
                "nothing fits: set train.activation_checkpointing or train.shard_model to true, or take smaller towers",
            )
        )
    else:
        rows.append(
            (
                "suggested",
                f"train.micro_batch: {best.micro_batch}, train.kept_graphs: {best.kept_graphs} "
                f"({show_size(best.memory.total)} a rank)",
            )
        )
    return rows


def _speed_rows(plan: Plan) -> list[tuple[str, str]]:
    rows = [("speed", _speed(speed)) for speed in (plan.assumed, plan.measured) if speed]
    if not rows:
        how = (
            "--measure times a few steps"
            if plan.target.kind == "cpu"
            else "name the GPU with --gpu, or --measure there"
        )
        rows.append(("speed", f"not known: {how}"))
    calibration = plan.calibration
    if calibration and plan.measured:
        steps = plan.split.local / calibration.step_seconds(plan.split)
        loader = calibration.loader_pairs_per_second
        data = f"loader {loader:,.0f} pairs/s" if loader else "no data to time the loader with"
        rows.append(("speed", f"of a rank: steps {steps:,.0f} pairs/s at {calibration.tokens} tokens, {data}"))
    return rows


def _speed(speed: Speed) -> str:
    text = f"{speed.pairs_per_second:,.0f} pairs/s, {speed.step_seconds:.2f} s a step"
    if speed.hours is not None:
        text += f", {_duration(speed.hours)}"
    if speed.gpu_hours is not None:
        text += f", {speed.gpu_hours:,.1f} GPU-hours"
    return f"{text} ({speed.source})"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.0f} seconds"


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.1f} GFLOP" if flops >= 1e9 else f"{flops / 1e6:.1f} MFLOP"
