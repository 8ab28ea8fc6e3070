"""What tests read from the folder of a run that is being trained."""

from __future__ import annotations

from pathlib import Path


def newest_checkpoint(run: Path) -> int:
    """Return the step of the newest checkpoint, whole or not; 0 where there is none."""
    found = (run / "checkpoints").glob("checkpoint-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)
