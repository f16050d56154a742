"""Whether somebody watches over the container that a pending run waits for."""

from __future__ import annotations

from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterLastHeartbeatTime
from prefect.client.schemas.objects import FlowRun
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

_PROCESS = "process"  # the type of a work pool whose runs are children of the worker
_NAME, _TYPE = "prefect.worker.name", "prefect.worker.type"  # labels that a worker gives a run before it asks for one
_STARTED = "prefect.worker.started"


def pools_of_containers(client: SyncPrefectClient) -> set[str]:
    """Return the work pools whose runs are pending until a container has been started for them."""
    return {pool.name for pool in client.read_work_pools() if pool.type != _PROCESS}


def is_watched(client: SyncPrefectClient, run: FlowRun, heard_since: datetime) -> bool:
    """Return whether the worker that took a pending run has been heard of, and is the process that took it.

    It waits for the node, the image and the start, and itself ends a run whose container does not come or ends early.
    One that began again under its name knows nothing of the containers before.

    Args:
        run: pending in a work pool of containers.
        heard_since: a worker whose last heartbeat is from before is gone.
    """
    name, kind = run.labels.get(_NAME), run.labels.get(_TYPE)
    if name is None or run.work_pool_name is None or run.state is None:
        return False  # its worker was gone before it asked for a container
    lately = WorkerFilter(last_heartbeat_time=WorkerFilterLastHeartbeatTime(after_=heard_since))
    if all(worker.name != name for worker in client.read_workers_for_work_pool(run.work_pool_name, lately)):
        return False
    began_again = EventFilter(
        occurred=EventOccurredFilter.model_validate({"since": run.state.timestamp}),
        event=EventNameFilter(name=[_STARTED]),
        resource=EventResourceFilter(
            labels=ResourceSpecification({"prefect.resource.name": str(name), "prefect.worker-type": str(kind)})
        ),
    )
    return not client.read_events(began_again, limit=1).events
