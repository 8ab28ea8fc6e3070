"""Files that are whole or absent: for any reader, and where it is asked for after a power failure too."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Step = Callable[[str], None]
"""Told of every step of a write before the next one is taken; tests end the process there."""


def no_step(_: str) -> None:
    """Do nothing."""


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the name under which to write a file or a folder; at a clean exit it takes the place of `path`.

    Writers at the same time do not meet. Nothing is synced: after a power failure the file may be an empty one.

    Raises:
        OSError: the folder cannot be written; what was written is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some libraries choose the form by it, or append it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


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
