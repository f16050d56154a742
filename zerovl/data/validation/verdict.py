"""The verdict on the data, as `verdict.json` holds it and as a person reads it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from zerovl.data.manifest import Manifest
from zerovl.data.validation.rules import Rule, statistics
from zerovl.data.validation.statistics import Scan

NOT_LOOKED_AT = "not_looked_at"  # key of the verdict: sources that training streams


def make_verdict(
    manifest: Manifest, counted: Scan, rules: list[Rule], outcomes: list[dict[str, Any]], version: str
) -> dict[str, Any]:
    """Return what `verdict.json` holds; equal data give equal bytes."""
    listed = [
        {
            "name": rule.name,
            "level": rule.level,
            "bound": rule.bound,
            "value": rule.value,
            "passed": all(each["success"] for each in outcomes if each["rule"] == rule.name),
            "message": rule.message,
            "examples": rule.examples,
        }
        for rule in rules
    ]
    return {
        "passed": all(rule["passed"] for rule in listed if rule["level"] == "hard"),
        "manifest_digest": manifest.digest,
        "rows": counted.rows,
        "sampled_rows": 0 if counted.sample is None else len(counted.sample),
        "great_expectations": version,
        "rules": listed,
        "statistics": statistics(counted),
        "quarantine": {
            counted.kinds.called(kind): {"count": findings.count, "examples": findings.examples}
            for kind, findings in sorted(counted.reasons.items(), key=lambda item: (-item[1].count, item[0]))
        },
        "expectations": outcomes,
    } | (_on_request(counted) | _without_a_split(manifest))


def _on_request(counted: Scan) -> dict[str, Any]:
    """What was drawn, scored and left out by `prepare.draw_valid` and `prepare.filters`; nothing where they are off."""
    counts = {
        source: {
            split: {reason: asdict(tally) for reason, tally in sorted(reasons.items())}
            for split, reasons in sorted(by_split.items())
        }
        for source, by_split in sorted(counted.left_out.items())
    }
    drawn = {"drawn_valid": counted.drawn_valid} if counted.drawn_valid else {}
    return drawn | counted.models_asked | ({"left_out": counts} if counts else {})


def _without_a_split(manifest: Manifest) -> dict[str, Any]:
    """Which sources have no usable pair in a split, by split; nothing where all have both."""
    names = {name for name, _ in manifest.splits}
    lacking = {split: sorted(names.difference(manifest.sources(split))) for split in ("train", "valid")}
    found = {split: sources for split, sources in lacking.items() if sources}
    return {"sources_without": found} if found else {}


def describe_rule(rule: dict[str, Any], fix: str) -> str:
    """Return a rule of the verdict as text: value, bound, examples and what to do."""
    lines = [f"{rule['name']} ({rule['level']}) is {rule['value']:.6g}, must be {rule['bound']}: {rule['message']}"]
    for each in rule["examples"]:
        name = f"{each['key']} ({each['origin']})" if each["key"] and each["origin"] else each["key"] or each["origin"]
        lines.append(f"    {name}: {each['detail']}")
    return "\n  ".join([*lines, f"  fix: {fix}"])
