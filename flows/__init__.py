"""Prefect only: one task a DVC stage, and the flows that chain them. No training logic lives here."""

import os

# Read when Prefect is imported, so set before: the same for a run of a worker and one of a terminal.
# The beat is what the automation "zerovl: lost runs" waits for; retries double their delay from 2 s, so
# that the server may be away for minutes.
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")
