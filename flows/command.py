"""A flow from the command line: its parameters become options, `python -m flows.NAME --option value`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
from prefect import Flow, tags
from prefect.settings import get_current_settings

TAG = "zerovl"  # as the deployments have it: the automation for lost runs looks at runs with it alone


def main(flow: Flow[..., Any], check: Callable[..., object] = lambda **_: None) -> None:
    """Run a flow here and now and print what it returns; exits with 1 where it fails and with 130 after Ctrl-C.

    Args:
        check: gets the flow's parameters and raises where they cannot be right, before a server is started for the run.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.name}", description=(flow.description or "").partition("\n\nArgs:")[0]
    )
    for name, described in flow.parameters.properties.items():
        if "$ref" not in described.get("items", {}):  # settings chosen from a list are of forms alone
            _add(parser, name, described, name in flow.parameters.required)
    arguments = vars(parser.parse_args())
    try:
        check(**arguments)
        start_own_server()
        with tags(TAG):
            result = flow(**arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except httpx.HTTPError as error:
        where = get_current_settings().api.url or "a server of its own"
        sys.exit(
            f"flows.{flow.name}: {where}: {error or type(error).__name__}; unset PREFECT_API_URL to run without one"
        )
    except Exception as error:
        sys.exit(f"flows.{flow.name}: {error}")
    if result is not None:
        print(result if isinstance(result, str) else json.dumps(result, indent=2))


def start_own_server() -> None:
    """Start the server of a run that has none, as Prefect does; it waits as long as `flows.PREFECT_SETTINGS` says.

    One that listens, and is too busy to answer within the five seconds that Prefect gives it, is not given up: from
    then on each request is tried again for minutes.
    """
    settings = get_current_settings()
    if settings.api.url or not settings.server.ephemeral.enabled:
        return
    from prefect.server.api.server import SubprocessASGIServer  # seconds, which a run with a server does without

    server = SubprocessASGIServer()
    try:
        server.start()
    except httpx.TimeoutException:
        server.running = True


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
        if "anyOf" in described:  # some by name, or one's own
            label = "|".join([*described["anyOf"][0]["enum"], label])
        parser.add_argument(
            option, type=converter, choices=choices, default=default, required=required, help=text,
            metavar=None if choices else label,
        )  # fmt: skip
