"""One contestant of a benchmark in a process of its own: several engines do not live in one."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from typing import Any

from hangtag.errors import EngineError

_START_S = 600


class Contestant:
    """A process that answers one request after another.

    `work(connection, *arguments)` runs there: it sends one object when it has started, then one for each object
    that it receives, and ends when it receives None.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        """Start the process; `start` waits for it."""
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *arguments))
        self._process.start()

    def start(self) -> Any:
        """Return what the process says once it has started.

        Raises:
            EngineError: it ended, or was not ready in ten minutes.
        """
        return self._receive(_START_S)

    def ask(self, request: Any) -> Any:
        """Return the answer to a request. Raises EngineError: the process ended."""
        self._connection.send(request)
        return self._receive(None)

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(BrokenPipeError):
                self._connection.send(None)
            self._process.join(30)
            if self._process.is_alive():
                self._process.kill()

    def _receive(self, timeout_s: float | None) -> Any:
        died = EngineError(f"contestant {self._name}: its engine ended; what it said stands above")
        waited = 0.0
        while not self._connection.poll(1.0):
            waited += 1.0
            if not self._process.is_alive() or (timeout_s is not None and waited > timeout_s):
                raise died
        try:
            return self._connection.recv()
        except EOFError:
            raise died from None
