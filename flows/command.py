"""A flow from the command line: its parameters become options, `python -m flows.NAME --option value`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from prefect import Flow
from prefect.exceptions import ParameterTypeError


def main(flow: Flow[..., Any]) -> None:
    """Run a flow here and now; exits with 1 where it fails and 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.name}", description=(flow.description or "").partition("\n\nArgs:")[0]
    )
    for name, described in flow.parameters.properties.items():
        _add(parser, name, described, name in flow.parameters.required)
    arguments = vars(parser.parse_args())
    try:
        flow(**arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except ParameterTypeError as error:
        sys.exit(f"flows.{flow.name}: {error}")
    except Exception:  # told with its traceback by the flow's own log
        sys.exit(1)


def _add(parser: argparse.ArgumentParser, name: str, described: dict[str, Any], required: bool) -> None:
    option, kind, default = f"--{name.replace('_', '-')}", described.get("type"), described.get("default")
    text = described.get("description", "") + ("" if required else f" (default: {default})")
    text = text.replace("%", "%%")
    if kind == "boolean":
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=text)
    elif kind == "array":
        parser.add_argument(option, nargs="*", default=default, metavar="KEY=VALUE", help=text)
    else:
        converter = {"number": float, "integer": int}.get(str(kind), str)
        choices, label = described.get("enum"), name.upper()
        parser.add_argument(
            option, type=converter, choices=choices, default=default, required=required, help=text,
            metavar=None if choices else label,
        )  # fmt: skip
