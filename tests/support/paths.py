"""Places that tests read: the project, and the data beside it that it does not depend on."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
PARITY = SHARED / "parity"  # golden outputs of the original implementation
