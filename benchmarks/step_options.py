"""The options of a step, each against its opposite: part of `bench_step`.

CPU time of one decoupled step (of the optimiser's step for AdamW) on one thread, both sides
interleaved on the same pairs; the memory of activation checkpointing in fresh processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import kinds
from benchmarks.child import Runner
from benchmarks.common import (
    MIB,
    NotMeasured,
    Record,
    Results,
    forget_peak,
    interleaved,
    measured,
    peak_resident,
    resident,
    rounded,
    summary,
)
from benchmarks.towers import MAX_TOKENS, MicroBatch, caption_lengths, make, make_batch
from zerovl.engine.model_options import prepare_model
from zerovl.model.dual_encoder import DualEncoder
from zerovl.params import MachineParams

CPU = torch.device("cpu")
Call = Callable[[], object]
WITHOUT, WITH = "without", "with"


@dataclass(frozen=True)
class Settings:
    vit: str = "vit"
    convolutions: str = "demo"
    batch: int = 64
    micro_batch: int = 32
    rounds: int = 5


SMOKE = Settings(vit="tiny", convolutions="tiny", batch=4, micro_batch=2, rounds=1)


def measure(results: Results, settings: Settings, runner: Runner) -> None:
    """Section "options"; the ratio is that of the option to its opposite."""
    pairs: dict[str, Callable[[], dict[str, Call]]] = {
        "SDPA attention": lambda: _attention(settings),
        "captions padded to the longest": lambda: _padding(settings),
        "fused AdamW, against foreach": lambda: _adamw(settings, foreach=True),
        "fused AdamW, against a loop": lambda: _adamw(settings, foreach=False),
        "activation checkpointing": lambda: _prepared(
            settings.vit, settings, MachineParams(activation_checkpointing=True)
        ),
        "torch.compile": lambda: _prepared(settings.vit, settings, MachineParams(compile=True)),
        "channels_last": lambda: _prepared(settings.convolutions, settings, MachineParams(channels_last=True)),
    }
    for name, make_calls in pairs.items():
        record = measured(partial(_ratio, make_calls, settings.rounds))
        results.add("options", name, record)
    for checkpointing in (False, True):
        record = runner(
            "benchmarks.step_options:peak", towers=settings.vit, batch=settings.batch, checkpointing=checkpointing
        )
        name = f"plain step, {WITH if checkpointing else WITHOUT} activation checkpointing"
        results.add("option memory", name, {"batch": settings.batch, **record})


def _ratio(make_calls: Callable[[], dict[str, Call]], rounds: int) -> Record:
    seconds = interleaved(make_calls(), rounds, time.process_time)
    return {**summary(seconds[WITH], seconds[WITHOUT]), "seconds_without": summary(seconds[WITHOUT])["seconds"]}


def _step(model: DualEncoder, batch: list[MicroBatch]) -> Call:
    step = kinds.finders(model, CPU, "float32", kept=0)[kinds.DGA]()
    return partial(kinds.run_step, step, model, batch)


def _attention(settings: Settings) -> dict[str, Call]:
    batch = make_batch(settings.vit, settings.batch, settings.micro_batch)
    eager = make(settings.vit, CPU)
    eager.text_tower.set_attn_implementation("eager")  # type: ignore[operator]
    for module in eager.image_tower.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    return {WITHOUT: _step(eager, batch), WITH: _step(make(settings.vit, CPU), batch)}


def _padding(settings: Settings) -> dict[str, Call]:
    lengths = caption_lengths(settings.batch)
    model = make(settings.vit, CPU)
    longest = make_batch(settings.vit, settings.batch, settings.micro_batch, lengths)
    padded = make_batch(settings.vit, settings.batch, settings.micro_batch, lengths, padded_to=MAX_TOKENS)
    return {WITHOUT: _step(model, padded), WITH: _step(model, longest)}


def _adamw(settings: Settings, foreach: bool) -> dict[str, Call]:
    opposite, fused = make(settings.vit, CPU), make(settings.vit, CPU)
    for parameter in (*opposite.parameters(), *fused.parameters()):
        parameter.grad = torch.full_like(parameter, 1e-3)
    return {
        WITHOUT: torch.optim.AdamW(opposite.parameters(), lr=1e-3, foreach=foreach).step,
        WITH: torch.optim.AdamW(fused.parameters(), lr=1e-3, fused=True).step,
    }


def _prepared(towers: str, settings: Settings, machine: MachineParams) -> dict[str, Call]:
    if machine.compile:
        _need_compiler()
    batch = make_batch(towers, settings.batch, settings.micro_batch)
    with_option = make(towers, CPU)
    prepare_model(with_option, [], machine, kinds.one_rank(CPU))
    return {WITHOUT: _step(make(towers, CPU), batch), WITH: _step(with_option, batch)}


def _need_compiler() -> None:
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        builder.get_cpp_compiler()
    except InvalidCxxCompiler:
        raise NotMeasured("torch.compile on a CPU needs a C++ compiler") from None


def peak(towers: str, batch: int, checkpointing: bool) -> Record:
    """Largest resident memory of a plain step over what was resident before; a process does it once."""
    torch.set_num_threads(1)
    model = make(towers, CPU)
    prepare_model(model, [], MachineParams(activation_checkpointing=checkpointing), kinds.one_rank(CPU))
    step = kinds.finders(model, CPU, "float32", kept=0)[kinds.PLAIN]()
    kinds.run_step(step, model, make_batch(towers, 2, 2))
    whole = make_batch(towers, batch, batch)
    forget_peak()
    before = resident()
    kinds.run_step(step, model, whole)
    return {"extra_mib": rounded((peak_resident() - before) / MIB)}
