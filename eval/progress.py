"""Progress of one arm on standard error: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_LINE_EVERY_S = 15.0


class ArmProgress:
    """Shows how many products of an arm are done, products a second and the time left; a context manager."""

    def __init__(self, name: str, total: int) -> None:
        """Prepare for `total` products."""
        self._name, self._total, self._done = name, total, 0
        self._bar: Any = None
        self._kept = 0
        self._is_first = True

    def __enter__(self) -> ArmProgress:
        self._start = self._last = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, speed="")
        return self

    def advance(self, number: int) -> None:
        """Count `number` more products as done. The first call tells what an earlier process had done."""
        self._done += number
        now = time.monotonic()
        if self._is_first:
            self._kept, self._is_first = number, False
        speed = (self._done - self._kept) / max(now - self._start, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=self._done, speed=f"{speed:.1f}/s" if speed else "")
        elif now - self._last >= _LINE_EVERY_S and speed and self._done < self._total:
            left = (self._total - self._done) / speed
            print(
                f"{self._name}: {self._done}/{self._total}, {speed:.1f} products/s, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            self._last = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        seconds = time.monotonic() - self._start
        end = "stopped" if kind else "done"
        print(f"{self._name}: {end}, {self._done}/{self._total} in {seconds:.1f} s", file=sys.stderr, flush=True)
