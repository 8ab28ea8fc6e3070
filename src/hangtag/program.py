"""What all programs share: the form of their help, how they end, and the bar that long work shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from hangtag.errors import HangtagError

_LOG_EVERY_S = 15.0


def parser(name: str, description: str | None, **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a program that shows its docstring as it stands."""
    return argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )


def run(name: str, work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Return the exit code of `work`; what it refuses is one line, and so is an interruption (exit code 1)."""
    try:
        return work()
    except HangtagError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 1


def progress(what: str, unit: str, **options: Any) -> Any:
    """Return a bar on standard error with rate and time left; in a log a line every 15 seconds.

    It is a `tqdm.tqdm`; `options` are its own: an iterable, `total`, `initial`, `disable`.
    """
    every = 0.1 if sys.stderr.isatty() else _LOG_EVERY_S
    return tqdm(desc=what, unit=unit, mininterval=every, **options)
