"""The table of the ablation, from its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any

# 95%, two-sided, for n seeds.
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}

Run = Mapping[str, Any]


def seen(run: Run) -> float:
    """Return the mean RSUM over the sources that the run trained on."""
    return fmean(value for name, value in run["sources"].items() if name != run["held_out"])


def unseen(run: Run) -> float:
    """Return RSUM of the source that was left out."""
    value: float = run["sources"][run["held_out"]]
    return value


def table(runs: Sequence[Run], settings: Mapping[str, Sequence[str]], tuning_seed: int) -> str:
    """Return a table for each setting, as Markdown; a setting without a complete variant is left out."""
    reported = [run for run in runs if run["seed"] != tuning_seed]
    parts = [
        _setting(name, variants, [run for run in reported if run["setting"] == name])
        for name, variants in settings.items()
    ]
    return "\n".join(part for part in parts if part)


def beside(runs: Sequence[Run], peer: str, tuning_seed: int) -> str:
    """Return a table of how much more each variant has than a peer's run of the same seed; empty without such runs."""
    by_variant: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        if run["seed"] != tuning_seed:
            by_variant.setdefault((run["setting"], run["variant"]), {})[run["seed"]] = run
    theirs = next((found for (_, variant), found in by_variant.items() if variant == peer), {})
    if not theirs:
        return ""
    lines = [
        f"| against {peer} | setting | lr | seen sources | difference | unseen source | difference |",
        "|---" * 7 + "|",
    ]
    for (setting, variant), found in by_variant.items():
        seeds = sorted(found.keys() & theirs)
        if not seeds or setting == "learning":  # its towers are others, and so are its pictures
            continue
        cells = [variant, setting, f"{found[seeds[0]]['lr']:g}"]
        for score in (seen, unseen):
            values = [score(found[seed]) for seed in seeds]
            before = [] if variant == peer else [score(theirs[seed]) for seed in seeds]
            cells += [f"{fmean(values):.1f}", difference(values, before)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n" + "\n".join(lines) + "\n"


def _setting(name: str, variants: Sequence[str], runs: list[Run]) -> str:
    by_variant = {variant: {run["seed"]: run for run in runs if run["variant"] == variant} for variant in variants}
    seeds = sorted(set.intersection(*(set(found) for found in by_variant.values())))
    if not seeds:
        return ""
    sources = sorted({source for run in runs for source in run["sources"]})
    lines = [
        f"**{name}**",
        "",
        "| variant | lr | steps | pairs seen | seen sources | against the line above | unseen source "
        f"| against the line above | {' | '.join(sources)} |",
        "|---" * (8 + len(sources)) + "|",
    ]
    before: list[Run] = []
    for variant in variants:
        chosen = [by_variant[variant][seed] for seed in seeds]
        cells = [variant, f"{chosen[0]['lr']:g}", _range(chosen, "steps"), _range(chosen, "pairs_seen")]
        for score in (seen, unseen):
            values = [score(run) for run in chosen]
            cells += [f"{fmean(values):.1f}", difference(values, [score(run) for run in before])]
        for source in sources:
            values = [run["sources"][source] for run in chosen if run["held_out"] != source]
            cells.append(f"{fmean(values):.1f}" if values else "")
        lines.append("| " + " | ".join(cells) + " |")
        before = chosen
    held_out = ", ".join(run["held_out"] for run in before)
    lines += [
        "",
        f"RSUM, mean over {len(seeds)} seeds (left out in turn: {held_out}); differences with half of their paired 95% "
        f"t-interval over seeds. A source's own column has the seeds that trained on it.",
        "",
    ]
    return "\n".join(lines)


def _range(runs: Sequence[Run], key: str) -> str:
    """Return the numbers of some runs; they differ a little, as a source more or less is left out."""
    lowest, highest = min(run[key] for run in runs), max(run[key] for run in runs)
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"


def difference(values: Sequence[float], before: Sequence[float]) -> str:
    """Return the mean difference of pairs of runs of one seed, with half of its 95% t-interval; empty without any."""
    if not before:
        return ""
    differences = [after - value for after, value in zip(values, before, strict=True)]
    if len(differences) < 2:
        return f"{differences[0]:+.1f}"
    half = STUDENT_T[len(differences)] * stdev(differences) / sqrt(len(differences))
    return f"{fmean(differences):+.1f} ± {half:.1f}"
