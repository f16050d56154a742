"""What Great Expectations found, as a section of the page: its own Data Docs are bare where there is no network."""

from __future__ import annotations

from html import escape
from typing import Any

_TABLES = ("rules", "shards", "sample")
_SHOWN = 60  # characters of an unexpected value


def expectations_section(verdict: dict[str, Any]) -> str:
    """Return the section of a verdict's expectations, those that failed first; every text of the data is escaped."""
    outcomes = verdict["expectations"]
    values = {rule["name"]: rule["value"] for rule in verdict["rules"]}
    listed = sorted(outcomes, key=lambda each: (each["success"], _TABLES.index(each["table"])))
    failed = sum(not each["success"] for each in outcomes)
    head = (
        "<thead><tr><th>Table</th><th>Column</th><th>Expected</th><th>State</th><th>Observed</th><th>Rule</th></tr>"
        "</thead>"
    )
    rows = "\n".join(_row(each, values) for each in listed)
    return (
        "<h2>Expectations</h2>\n"
        f"<p class='quiet'>{len(outcomes) - failed} of {len(outcomes)} were met, as Great Expectations "
        f"{escape(verdict['great_expectations'])} found them in a <code>sample</code> of {verdict['sampled_rows']:,} "
        "rows, in all <code>shards</code>, and in the values of the <code>rules</code> above. A rule holds where all "
        "of its expectations are met.</p>\n"
        f"<details{' open' if failed else ''}><summary>all {len(outcomes)}</summary>"
        f"<div class='wide'><table class='expectations'>{head}<tbody>\n{rows}\n</tbody></table></div></details>"
    )


def in_words(kind: str, options: dict[str, Any]) -> str:
    """Return what an expectation of a type, with its options, asks of a column."""
    match kind:
        case "expect_column_values_to_not_be_null":
            return "is never missing"
        case "expect_column_values_to_be_unique":
            return "is unique"
        case "expect_compound_columns_to_be_unique":
            return "are unique together"
        case "expect_column_pair_values_to_be_equal":
            return "are equal in each row"
        case "expect_column_values_to_match_regex":
            return f"matches {options['regex']}"
        case "expect_column_values_to_not_match_regex":
            return f"does not match {options['regex']}"
        case "expect_column_values_to_be_between":
            bounds = {"at least": options.get("min_value"), "at most": options.get("max_value")}
            return " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    raise ValueError(f"no words for {kind}")


def _row(outcome: dict[str, Any], values: dict[str, float | None]) -> str:
    state = "not checked" if not outcome["checked"] else "passed" if outcome["success"] else "broken"
    columns = [outcome["column"]] if isinstance(outcome["column"], str) else outcome["column"]
    names = ", ".join(f"<code>{escape(name)}</code>" for name in columns)
    return (
        f"<tr><td>{outcome['table']}</td><td>{names}</td><td>{escape(outcome['expected'])}</td>"
        f"<td class='state {state.replace(' ', '-')}'>{state}</td><td>{escape(_observed(outcome, values))}</td>"
        f"<td><code>{escape(outcome['rule'])}</code></td></tr>"
    )


def _observed(outcome: dict[str, Any], values: dict[str, float | None]) -> str:
    if not outcome["checked"]:
        return "no values"
    if outcome["table"] == "rules":  # one row, so its value says more than a count
        return f"{values[outcome['rule']]:.6g}"
    counts = f"{outcome['unexpected']:,} of {outcome['checked']:,} are not"
    shown = ", ".join(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..." for text in outcome["examples"])
    return f"{counts}: {shown}" if shown else counts
