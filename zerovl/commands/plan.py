"""`zerovl plan`: say what training will take."""

from __future__ import annotations

from zerovl.files import write_json
from zerovl.params import Params
from zerovl.planning.make import Options, make_plan
from zerovl.planning.show import show
from zerovl.workspace import Workspace


def run(params: Params, params_path: str, options: Options, workspace: Workspace) -> None:
    """Print the plan of `params`, read from `params_path`, and write it where --json says."""
    plan = make_plan(params, params_path, options, workspace)
    print(show(params, plan))
    if options.json:
        write_json(options.json, plan.as_dict())
