"""Prefect only: one task a DVC stage, and the flows that chain them. No training logic lives here."""

import os

# Read when Prefect is imported, so set before: the same for a run of a worker (also in prefect.yaml), for one of a
# terminal and for what `make ui` starts.
PREFECT_SETTINGS = {
    # The heartbeat is what the automation "zerovl: lost runs" waits for.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # Retries double their delay from 2 s, so that the server may be away for minutes.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    # A server on SQLite answers 500 where no connection is free for 30 s: without another attempt a state is lost.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    # Longer than its SQLite waits for a lock (60 s): the answer is worth waiting for.
    "PREFECT_API_REQUEST_TIMEOUT": "90",
    # Of a run without a server; on a busy machine one starts in more than Prefect's 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # It has nothing to tell its makers, and a busy SQLite would answer with a traceback.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
# Of a server, where it has no others: `make ui` sets them, flows/README.md names them for a server of its own. By its
# lease a run keeps its deployment's slot. In the server's memory it is lost with the server, and then Prefect ends the
# run; where leases expire, it ends one whose server was away for minutes. `flows.server.upkeep` frees what none holds.
SERVER_SETTINGS = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    # An event that finds SQLite locked is tried again for most of a minute, and not four times at once.
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "flows.server.broker",
    # Its address opens the UI that README shows and the tests look at. The other one ("Switch to V2 UI") asks a server
    # of amplitude.com for settings at each page, whatever the setting of analytics says.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}
for _name, _value in PREFECT_SETTINGS.items():
    os.environ.setdefault(_name, _value)
