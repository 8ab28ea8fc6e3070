"""Files that are whole or absent, also after a power failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

Step = Callable[[str], None]
"""Told of every step of a write before the next one is taken; tests end the process there."""


def no_step(_: str) -> None:
    """Do nothing."""


def write_durably(path: Path, blocks: Iterable[bytes | memoryview], *, step: Step = no_step) -> None:
    """Write a file under a temporary name, sync it, rename it, and sync the folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the temporary file is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as stream:
            for block in blocks:
                stream.write(block)
            stream.flush()
            step(f"{path.suffix} written")
            os.fsync(stream.fileno())
        step(f"{path.suffix} synced")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    step(f"{path.suffix} renamed")
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
