"""Runs that a test kills while they train, and what it reads from their folders."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def newest_checkpoint(run: Path) -> int:
    """Return the step of the newest checkpoint, whole or not; 0 where there is none."""
    found = (run / "checkpoints").glob("checkpoint-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def kill_in_training(command: Sequence[str], run: Path, *, at: int, steps: int) -> str:
    """Start a program that trains `steps` steps into `run`, and kill it at step `at` or a moment later.

    It comes somewhere in a step, or in a checkpoint that is being written; another half-written one, newer than
    all, is left beside those that are there. Returns when the kill came, for the message of a failure.
    """
    later = random.Random().uniform(0, 0.1)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while newest_checkpoint(run) < at:
        assert process.poll() is None, f"{command} ended before its step {at}"
        assert time.monotonic() < deadline, f"{command} has not come to its step {at}"
        time.sleep(0.01)
    time.sleep(later)
    process.kill()
    process.wait()
    assert not (run / "manifest.json").exists(), "it was finished before it could be killed"
    begun = run / "checkpoints" / f"checkpoint-{steps}"
    begun.mkdir(exist_ok=True)
    (begun / "model.safetensors").write_bytes(b"half")
    return f"killed {later:.3f} s after step {at}"
