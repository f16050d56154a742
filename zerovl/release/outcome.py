"""Say what became of a candidate: its version, the gate's reasons, and how to load it."""

from __future__ import annotations

from zerovl.params import RegisterParams
from zerovl.registry.records import Move, Version
from zerovl.release.gate import Verdict
from zerovl.release.publish import usage_lines
from zerovl.text_format import file_size, plural


def tell(version: Version, verdict: Verdict, move: Move | None, section: RegisterParams) -> None:
    """Print what was registered; `move` is that of the alias, None where it did not move."""
    contents = f"{plural(len(version.files), 'file')}, {file_size(version.size)}"
    print(f"registered {version.reference} in {section.store} ({contents})")
    if move:
        print(f"gate passed; {version.name}@{section.alias} is version {version.number} (move {move.number})")
        if move.check:
            print(f"  {move.check}")
    elif not verdict.passed:
        print(f"gate FAILED; {version.name}@{section.alias or 'VERSION'} stays as it is:")
    if verdict.holder:
        print(f"  {verdict.holder.alias} was {verdict.holder}")
    for reason in verdict.reasons:
        if not reason.passed or reason.note or reason.low is not None:
            print(f"  {reason}")
    label = section.alias if move else str(version.number)
    print("load it with:\n" + "\n".join(f"    {line}" for line in usage_lines(section, label).splitlines()))
