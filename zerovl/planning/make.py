"""Put a plan together from the parameters, what the command line names, and this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.device import uses_gpu
from zerovl.errors import ZeroVLError
from zerovl.evaluation.gate_sources import gate_problem
from zerovl.params import Params, batch_problem
from zerovl.planning import plan as planning
from zerovl.planning.calibrate import calibrate
from zerovl.planning.plan import Plan
from zerovl.planning.target import find_target
from zerovl.sizing.footprint import footprint
from zerovl.text_format import plural
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
    nodes: int | None = None


def make_plan(params: Params, params_path: str, options: Options, workspace: Workspace) -> Plan:
    """Raises `ZeroVLError` where the parameters or options contradict each other or this machine."""
    target = find_target(params, options.ranks, options.gpu, options.gpu_memory, options.nodes)
    params, smaller = _smaller_micro_batch(params, target.world_size)
    check_ranks(params, target.world_size)
    if options.measure and target.kind == "cuda" and not uses_gpu():
        raise ZeroVLError("--measure runs steps on this machine, which has no GPU; leave it out, or run it on the GPUs")
    model = planning.imagine_model(params, target, workspace)
    suggestion = planning.suggest(params, target, model)
    layout = planning.planned_layout(params, target, model, suggestion)
    pairs = planning.training_pairs(params, workspace, options.pairs)
    steps = planning.planned_steps(params, pairs)
    work = planning.work(params, model.flops, layout)
    calibration = calibrate(params_path, layout, workspace) if options.measure else None
    return Plan(
        target=target,
        pairs=pairs,
        steps=steps,
        layout=layout,
        parameters=model.parameters,
        work=work,
        memory=footprint(planning.workload(params, target), model.size, model.activations, layout, target.kind),
        unseen_bytes=calibration.unseen_bytes if calibration else None,
        wire=planning.wire(params, model.parameters, layout, target.node_size),
        suggestion=suggestion,
        assumed=planning.assumed_speed(target, work, layout, params, steps),
        measured=planning.measured_speed(target, calibration, params, layout, steps) if calibration else None,
        calibration=calibration,
        notes=[
            *smaller,
            *model.notes,
            *_notes(params, options, pairs, layout.world_size),
            *_gate_notes(params, workspace),
        ],
    )


def _smaller_micro_batch(params: Params, ranks: int) -> tuple[Params, list[str]]:
    """Return parameters whose micro-batch divides what one of `ranks` has of the batch, and a note where it did not.

    A batch that does not divide over the ranks at all is left as it is.
    """
    train = params.train
    micro, local = train.micro_batch, train.batch_size // ranks
    if micro == "auto" or batch_problem(params, ranks) is None or train.batch_size % ranks or not local:
        return params, []
    smaller = math.gcd(local, micro)
    planned = params.model_copy(update={"train": train.model_copy(update={"micro_batch": smaller})})
    return planned, [
        f"train.micro_batch {micro} does not divide the {plural(local, 'pair')} that each of {ranks} ranks has of a "
        f"batch of {train.batch_size}: planned with {smaller}. Training needs train.micro_batch={smaller} there, or a "
        f"larger train.batch_size"
    ]


def _gate_notes(params: Params, workspace: Workspace) -> list[str]:
    """What training would refuse to begin with, where the data are here."""
    if not workspace.manifest_file.is_file():
        return []
    problem = gate_problem(params.register_.gate, Manifest.load(workspace.manifest))
    return [problem] if problem else []


def _notes(params: Params, options: Options, pairs: int | None, ranks: int) -> list[str]:
    notes = []
    if params.machine.shard_model and params.machine.shard_within == "node" and options.nodes is None:
        notes.append("machine.shard_within node: planned for one node, where it has no effect; say --nodes N")
    if pairs is None:
        notes.append("no manifest here: steps and hours are not known; run `dvc repro prepare`, or say --pairs N")
    if params.machine.compile:
        notes.append("machine.compile is not planned: compiled towers mostly take less memory and time")
    if options.measure and ranks > 1:
        notes.append("measured with one rank: sending over the wire and ranks that share this machine come on top")
    return notes
