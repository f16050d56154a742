"""Result files as Markdown tables: every number of the page comes through here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.common import Record
from benchmarks.table_cells import (
    NOT_MEASURED,
    at_most,
    error,
    gib,
    met,
    mib,
    ratio,
    read,
    seconds,
    table,
    under,
    value,
)

# Names as the result files have them; kept apart from `kinds` and `losses`, which import torch.
TILED, DENSE, CLIP_LOSS, UNSHIFTED = "tiled", "dense", "open_clip ClipLoss", "without the shift by the maximum"
FLASH, INF = "inf_cl cal_flash_loss", "inf_cl cal_inf_loss"
PLAIN, DGA, KEPT, ACCUM = "plain", "DGA", "DGA with kept graphs", "open_clip accum_freq"


def loss_time(results: Path) -> str:
    result = read(results / "loss.json")
    records = list(result.get("time", {}).values())
    rows = []
    for on, pairs in sorted({(record["on"], record["pairs"]) for record in records if "on" in record}):
        own = {record["loss"]: record for record in records if record["pairs"] == pairs and record.get("on", on) == on}
        cells = [value(own.get(name), "seconds", seconds) for name in (CLIP_LOSS, DENSE, TILED)]
        goal = 0.55 if pairs == 8192 else None
        rows.append([f"{pairs:,}", on, *cells, ratio(own.get(TILED), goal)])
    head = ["pairs", "on", CLIP_LOSS, DENSE, TILED, f"{TILED} / open_clip"]
    return f"{table(head, rows)}\n\n{under(result)}" if rows else under({})


def loss_memory(results: Path) -> str:
    result = read(results / "loss.json")
    records = list(result.get("memory", {}).values())
    rows = []
    for pairs in sorted({record["pairs"] for record in records}):
        own = {record["loss"]: record for record in records if record["pairs"] == pairs}
        goal = 200 if pairs == 16384 else None
        cells = [value(own.get(name), "extra_mib", mib) for name in (CLIP_LOSS, DENSE)]
        rows.append([f"{pairs:,}", *cells, at_most(own.get(TILED), "extra_mib", mib, goal)])
    return f"{table(['pairs', CLIP_LOSS, DENSE, TILED], rows)}\n\n{under(result)}" if rows else under({})


def loss_stability(results: Path) -> str:
    result = read(results / "loss.json")
    records = list(result.get("stability", {}).values())
    rows = []
    for temperature in sorted({record["temperature"] for record in records}, reverse=True):
        own = {record["loss"]: record for record in records if record["temperature"] == temperature}
        rows.append([str(temperature), *(error(own[name]) for name in (TILED, DENSE, UNSHIFTED))])
    return table(["temperature", TILED, DENSE, UNSHIFTED], rows) if rows else under({})


def gpu_loss(results: Path) -> str:
    result = _with_gpu(results, "loss")
    records = [record for record in result.get("loss", {}).values() if "loss" in record]
    rows = []
    for pairs in sorted({record["pairs"] for record in records}) or [65536, 262144]:
        own = {record["loss"]: record for record in records if record["pairs"] == pairs}
        cells = [value(own.get(name), "seconds", seconds) for name in (CLIP_LOSS, INF, FLASH, TILED)]
        half, whole = (0.5, 1.0) if pairs == 65536 else (None, None)
        rows.append(
            [f"{pairs:,}", *cells, ratio(own.get(TILED), half), at_most(own.get(TILED), "extra_gib", gib, whole)]
        )
    head = ["pairs", CLIP_LOSS, INF, FLASH, TILED, f"{TILED} / {FLASH}", f"{TILED}: memory"]
    return f"{table(head, rows)}\n\n{under(result)}"


def gpu_parity(results: Path) -> str:
    result = _with_gpu(results, "loss parity")
    records = list(result.get("loss parity", {}).values())
    rows = [[record["dtype"], f"{record['pairs']:,}", error(record)] for record in records]
    return table(["dtype", "pairs", "gradient error"], rows or [["bfloat16", "1,024", NOT_MEASURED]])


def step_time(results: Path) -> str:
    result = read(results / "step.json")
    records = list(result.get("time", {}).values())
    if not records:
        return under({})
    towers = list(dict.fromkeys(record["towers"] for record in records))
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    goals = {DGA: 1.30, KEPT: 1.18}
    rows = []
    for kind in sorted(kinds, key=lambda kind: kind != PLAIN):
        own = {record["towers"]: record for record in records if record["kind"] == kind}
        row = [kind + _kept(own.values())]
        for name in towers:
            row += [value(own.get(name), "seconds", seconds), ratio(own.get(name), goals.get(kind))]
        rows.append(row)
    head = ["step", *(text for name in towers for text in (f"{name}: CPU time", "of plain"))]
    words = [f"`{name}`: {text}." for name, text in result["settings"]["words"].items()]
    return f"{table(head, rows)}\n\n{' '.join(words)}\n{under(result)}"


def _kept(records: Iterable[Record]) -> str:
    """The kept graphs of records of one kind, by those that could be measured."""
    return next((f", k = {record['kept']}" for record in records if record.get("kept")), "")


def step_memory(results: Path) -> str:
    result = read(results / "memory.json")
    records = list(result.get("memory", {}).values())
    batches = sorted({record["batch"] for record in records})
    rows = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        own = {record["batch"]: record for record in records if record["kind"] == kind}
        row = [kind + _kept(own.values())]
        row += [value(own.get(batch), "extra_mib", mib) for batch in batches]
        row.append(_growth(own, batches, "extra_mib", None))
        row.append(_growth(own, batches, "peak_mib", 1.2 if kind in (DGA, KEPT) else None))
        rows.append(row)
    if not rows:
        return under({})
    growth = f"{batches[-1]:,} / {batches[0]:,}"
    head = ["step", *(f"batch {batch:,}" for batch in batches), growth, f"{growth}, whole process"]
    words = [f"`{name}`: {text}." for name, text in result["settings"]["words"].items()]
    return f"{table(head, rows)}\n\n{' '.join(words)}\n{under(result)}"


def options(results: Path) -> str:
    result = read(results / "step.json")
    rows = []
    for name, record in result.get("options", {}).items():
        rows.append([name, value(record, "seconds_without", seconds), value(record, "seconds", seconds), ratio(record)])
    if not rows:
        return under({})
    text = table(["option", "without", "with", "with / without"], rows)
    memory = [[name, value(record, "extra_mib", mib)] for name, record in result.get("option memory", {}).items()]
    return f"{text}\n\n{table(['memory', 'extra'], memory)}\n\n{under(result)}"


def plan(results: Path) -> str:
    result = read(results / "plan.json")
    rows = [
        [
            name,
            f"{record['planned_memory'] / 2**20:,.0f} MiB",
            f"{record['memory'] / 2**20:,.0f} MiB",
            f"{record['memory_ratio']:.2f}",
            f"{record['planned_pairs_per_second']:,.0f}",
            f"{record['pairs_per_second']:,.0f}",
            f"{record['speed_ratio']:.2f}",
        ]
        for name, record in result.get("plan", {}).items()
    ]
    if not rows:
        return under({})
    head = ["run", "planned memory", "used", "ratio", "planned pairs/s", "found", "ratio"]
    return f"{table(head, rows)}\n\nGoal: ratios from 0.85 to 1.15. {under(result)}"


_GPU_SECTIONS = {
    "plain": "",
    "large batch": "",
    "low streams": ", low streams",
    "low streams, compiled": ", low streams, compiled",
    "compiled": ", compiled",
    "checkpointing": ", checkpointed",
}


def gpu_steps(results: Path) -> str:
    result = read(results / "gpu.json")
    rows = []
    for section, words in _GPU_SECTIONS.items():
        for record in result.get(section, {}).values():
            name = record["kind"] + words
            name += _kept([record])
            rows.append([name, f"{record['pairs']:,}", f"{record['micro_batch']:,}", *_speed(record)])
    rows += [[kind, "", "", record["not_measured"], "", ""] for kind, record in result.get("peers", {}).items()]
    if not rows:
        rows = [[kind, "16,384", "", *[NOT_MEASURED] * 3] for kind in (PLAIN, DGA, KEPT, ACCUM)]
    head = ["step", "batch", "micro-batch", "pairs/s", "of 800 TFLOP/s", "peak memory"]
    return f"{table(head, rows)}\n\n{gpu_goals(result)}\n\n{under(result)}"


def gpu_goals(result: Record) -> str:
    """The goals of one H100, each with what was reached."""
    rates: dict[str, float] = {}
    for section in _GPU_SECTIONS:
        for record in result.get(section, {}).values():
            if "pairs_per_second" in record:
                rates[record["kind"]] = max(rates.get(record["kind"], 0.0), record["pairs_per_second"])
    lines = []
    for kind, goal in ((PLAIN, 3384), (DGA, 2538)):
        found = f"{rates[kind]:,.0f} ({met(rates[kind] >= goal)})" if kind in rates else NOT_MEASURED
        lines.append([f"{kind}: pairs/s", f"{goal:,}", found])
    both = DGA in rates and ACCUM in rates
    times = rates[DGA] / rates[ACCUM] if both else 0.0
    found = f"{times:.2f} ({met(times >= 1.3)})" if both else NOT_MEASURED
    return table(["goal", "at least", "best found"], [*lines, [f"{DGA} / {ACCUM}", "1.30", found]])


def gpu_memory(results: Path) -> str:
    result = read(results / "gpu.json")
    records = list(result.get("memory", {}).values())
    batches = sorted({record["pairs"] for record in records}) or [1024, 4096, 16384, 65536]
    rows = []
    for kind in (DGA, ACCUM):
        own = {record["pairs"]: record for record in records if record["kind"] == kind}
        rows.append([kind, *(value(own.get(batch), "peak_gib", gib) for batch in batches)])
    return f"{table(['step', *(f'batch {batch:,}' for batch in batches)], rows)}\n\n{under(result)}"


def train(results: Path) -> str:
    result = read(results / "train.json")
    rows = [
        [
            name,
            f"{record['pairs_per_second']:,.0f}",
            f"{record['data_share']:.1%}",
            value(record, "gpu_busy", "{:.0%}".format),
            f"{record['peak_gib']:.1f} GiB",
        ]
        for name, record in result.get("train", {}).items()
    ]
    if not rows:
        return under({})
    return f"{table(['`zerovl train`', 'pairs/s', 'waits for data', 'GPU busy', 'memory'], rows)}\n\n{under(result)}"


def ablation(results: Path) -> str:
    file = results / "ablation.md"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else under({})


def _growth(own: dict[int, Record], batches: Sequence[int], field: str, goal: float | None) -> str:
    first, last = own.get(batches[0], {}), own.get(batches[-1], {})
    if field not in first or field not in last or not first[field]:
        return NOT_MEASURED
    growth = last[field] / first[field]
    return f"{growth:.2f}" if goal is None else f"{growth:.2f}, goal {goal:.2f}: {met(growth <= goal)}"


def _speed(record: Record) -> list[str]:
    if "not_measured" in record:
        return [record["not_measured"], "", ""]
    speed, share = f"{record['pairs_per_second']:,.0f}", f"{record['matrix_share']:.0%}"
    return [speed, share, value(record, "peak_gib", gib)]


def _with_gpu(results: Path, section: str) -> Record:
    """The GPU's loss figures are made by `bench_gpu`, or by `bench_loss` where there is a GPU."""
    for name in ("gpu.json", "loss.json"):
        if section in (result := read(results / name)):
            return result
    return {}
