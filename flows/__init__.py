"""Prefect only: one task a DVC stage, and the flows that chain them. No training logic lives here."""
