"""The flow `retention`: retires old versions by `register.keep`, removes their files. `python -m flows.retention`."""

from __future__ import annotations

from prefect import flow, runtime

from flows import command, registry_command
from flows.runtime.liveness import follow_worker
from flows.runtime.paths import Paths
from zerovl import params_file


@flow(name="retention")
def retention() -> str:
    """Retire the versions that register.keep of params.yaml does not keep, then remove files past their grace time."""
    follow_worker(runtime.flow_run.id)
    name = params_file.load(Paths.here().root / "params.yaml").register_.name
    return "\n".join(registry_command.run_registry_command([action, name]) for action in ("expire", "gc"))


if __name__ == "__main__":
    command.main(retention)
