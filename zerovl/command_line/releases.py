"""`zerovl registry` and its actions."""

from __future__ import annotations

import argparse

from zerovl.command_line.parts import Subparsers, command


def add_to(commands: Subparsers) -> None:
    """Add the command."""

    def run(arguments: argparse.Namespace) -> None:
        from zerovl.commands import registry, registry_moves, registry_notes, registry_retention

        further = {**registry_moves.ACTIONS, **registry_notes.ACTIONS, **registry_retention.ACTIONS}
        registry.run(arguments, further)

    def run_add(arguments: argparse.Namespace) -> None:
        from zerovl.commands import registry_add
        from zerovl.workspace import Workspace

        registry_add.add(arguments.reference, arguments.store, Workspace(), arguments.json)

    from zerovl.commands import registry_parser

    registry = command(commands, "registry", "look at releases, fetch them, add them, move aliases, retire them", run)
    registry_parser.add_actions(registry).set_defaults(run=run_add)
