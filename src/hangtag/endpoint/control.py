"""What the starting process tells a serving one, through files in their private folder.

There may be several serving processes behind one port, so nothing goes by signal: each looks at the folder a
few times a second. `keys.json` that changed brings new keys; `drain` asks to serve what is there and turn away
what comes; `in_flight.PID` is each process's answer to that, the number of requests it still works on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hangtag.endpoint.doors import KeyEntry, load_keys
from hangtag.endpoint.settings import KEYS
from hangtag.errors import RecipeError

DRAIN, IN_FLIGHT = "drain", "in_flight."
LOOK_EVERY_S = 0.1
_log = logging.getLogger(__name__)


class Control:
    """One serving process's view of the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        replace_keys: Callable[[Sequence[KeyEntry]], None],
        num_requests: Callable[[], int],
    ) -> None:
        """`replace_keys` is called with new keys, `num_requests` returns how many requests are worked on."""
        self.is_draining = False
        self._folder = folder
        self._replace_keys = replace_keys
        self._num_requests = num_requests
        self._version = self._keys_version()

    async def watch(self) -> None:
        """Look at the folder until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Act on what changed since the last look."""
        version = self._keys_version()
        if version != self._version:
            self._version = version
            try:
                self._replace_keys(load_keys(self._folder / KEYS))
            except RecipeError as error:
                _log.error("the keys stay as they are: %s", error)
        self.is_draining = self.is_draining or (self._folder / DRAIN).exists()
        if self.is_draining:
            answer = self._folder / f"{IN_FLIGHT}{os.getpid()}"
            temporary = answer.with_name(f".{answer.name}")
            temporary.write_text(str(self._num_requests()), encoding="utf-8")
            temporary.replace(answer)

    def _keys_version(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / KEYS).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def num_in_flight(folder: Path) -> int | None:
    """Return how many requests are worked on in all serving processes; None before the first has answered."""
    numbers = []
    for path in folder.glob(f"{IN_FLIGHT}*"):
        try:
            numbers.append(int(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
    return sum(numbers) if numbers else None
