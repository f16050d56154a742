"""A plan as aligned text."""

from __future__ import annotations

from zerovl.data.batches.visits import NOUNS
from zerovl.memory import MARGIN
from zerovl.params import Params
from zerovl.planning.plan import Plan, Speed
from zerovl.text_format import amount, duration, plural, size


def show(params: Params, plan: Plan) -> str:
    """The plan as aligned text."""
    rows = [*_run_rows(params, plan), *_memory_rows(params, plan), *_speed_rows(plan)]
    rows += [("note", note) for note in plan.notes]
    names = ["" if index and rows[index - 1][0] == name else name for index, (name, _) in enumerate(rows)]
    return "\n".join(f"  {name:<12} {text}" for name, (_, text) in zip(names, rows, strict=True))


def _run_rows(params: Params, plan: Plan) -> list[tuple[str, str]]:
    layout, work, parts = plan.layout, plan.work, plan.parameters
    train = params.train
    steps = "not known" if plan.steps is None else f"{plan.steps:,} of {layout.batch:,} pairs"
    if plan.pairs:
        over = f"{plan.pairs:,} {NOUNS[train.epoch_of]}"
        steps += f", {plan.pairs / layout.batch:,.1f} an epoch, {amount(train.epochs, 'epoch')} over {over}"
    passes_of = "one pass"
    if train.step == "decoupled":
        passes_of = (
            f"{plural(layout.micro_batches, 'micro-batch', 'micro-batches')} of {layout.micro_batch}, "
            f"{layout.kept_graphs} with kept graphs"
        )
    passes = f"{work.planned / work.forward:.2f} forward passes"
    wire = plan.wire
    return [
        ("target", f"{plan.target.name}, {size(plan.target.memory)} a rank, {train.precision}"),
        ("steps", steps),
        ("batch", f"{layout.world_size} x {layout.local:,} pairs, {train.step}: {passes_of}"),
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
            if layout.world_size == 1
            else f"{size(wire.total)} to each rank: captions {size(wire.embeddings)}, log-sum-exps "
            f"{size(wire.log_sum_exps)}, loss gradient {size(wire.loss_gradient)}, gradients {size(wire.gradients)}",
        ),
    ]


def _memory_rows(params: Params, plan: Plan) -> list[tuple[str, str]]:
    text = str(plan.memory)
    if plan.unseen_bytes is not None:
        text += f"; {size(plan.unseen_bytes)} of libraries and workspaces on top (measured)"
    elif plan.target.kind == "cpu":
        text += "; PyTorch's own come on top (--measure counts them)"
    fits = plan.peak_memory <= MARGIN[plan.target.kind] * plan.target.memory
    verdict = "fits" if fits else "DOES NOT FIT"
    rows = [("memory", text), ("memory", f"{verdict} in {size(plan.target.memory)}")]
    best = plan.suggestion
    if params.train.step == "plain":
        if not fits:
            rows.append(("suggested", "train.step: decoupled, whose memory does not grow with the batch"))
    elif best is None:
        rows.append(
            (
                "suggested",
                "nothing fits: set machine.activation_checkpointing or machine.shard_model to true, or take smaller "
                "towers",
            )
        )
    else:
        rows.append(
            (
                "suggested",
                f"train.micro_batch: {best.micro_batch}, machine.kept_graphs: {best.kept_graphs} "
                f"({size(best.memory.total)} a rank)",
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
        steps = plan.layout.local / calibration.step_seconds(plan.layout)
        loader = calibration.loader_pairs_per_second
        data = (
            f"loader {loader:,.0f} pairs/s" if loader else "the loader not timed: pairs are not prepared, or streamed"
        )
        rows.append(("speed", f"of a rank: steps {steps:,.0f} pairs/s at {calibration.tokens} tokens, {data}"))
    return rows


def _speed(speed: Speed) -> str:
    text = f"{speed.pairs_per_second:,.0f} pairs/s, {speed.step_seconds:.2f} s a step"
    if speed.hours is not None:
        text += f", {duration(speed.hours)}"
    if speed.gpu_hours is not None:
        text += f", {speed.gpu_hours:,.1f} GPU-hours"
    return f"{text} ({speed.source})"


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.1f} GFLOP" if flops >= 1e9 else f"{flops / 1e6:.1f} MFLOP"
