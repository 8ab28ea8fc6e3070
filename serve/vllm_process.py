"""vLLM's process: started, watched until it is ready, drained and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hangtag.endpoint.control import DRAIN, num_in_flight
from hangtag.errors import EngineError

_START_S = 1800
_END_S = 30


class Signals:
    """SIGTERM and SIGINT ask for the end, asked twice at once; SIGHUP calls `reload`."""

    def __init__(self, reload: Callable[[], None], kill: Callable[[], None]) -> None:
        self.is_asked = False
        self._reload = reload
        self._kill = kill
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGHUP, lambda *_: self._reload())

    def _ask(self, *_: Any) -> None:
        if self.is_asked:
            self._kill()
        self.is_asked = True


class Child:
    """vLLM's process. What it says goes to stderr once it is ready; before, it explains a failed start."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], *, is_verbose: bool) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._last: deque[str] = deque(maxlen=400)
        self._is_shown = is_verbose
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last.append(line.rstrip())
            if self._is_shown:
                print(line, end="", file=sys.stderr, flush=True)

    def wait_until_ready(self, url: str, signals: Signals) -> None:
        """Return once `url` answers 200, or the end is asked for.

        Raises:
            EngineError: the process ended, or does not come up.
        """
        until = time.monotonic() + _START_S
        while not signals.is_asked:
            code = self._process.poll()
            if code is not None:
                self._reader.join(5)
                raise EngineError(f"vLLM did not start: {explain(list(self._last), code)}")
            if _answers(url):
                self._is_shown = True
                return
            if time.monotonic() > until:
                self.kill()
                raise EngineError(f"vLLM did not start within {_START_S} s; --verbose shows what it does")
            time.sleep(0.25)

    def wait_until_asked(self, signals: Signals) -> None:
        """Return once the end is asked for. Raises EngineError: the process ended by itself."""
        while not signals.is_asked:
            code = self._process.poll()
            if code is not None:
                self._reader.join(5)
                raise EngineError(f"vLLM ended: {explain(list(self._last), code)}")
            time.sleep(0.1)

    def drain(self, folder: Path, grace_s: float) -> int:
        """End the process once what is being answered is finished, at the latest after `grace_s`.

        Returns how many requests were not answered.
        """
        (folder / DRAIN).touch()
        until = time.monotonic() + grace_s
        # Long enough for every serving process to have seen that it should drain.
        time.sleep(min(0.5, grace_s))
        while time.monotonic() < until and self._process.poll() is None and num_in_flight(folder):
            time.sleep(0.05)
        left = num_in_flight(folder) or 0
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        return left

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def explain(lines: Sequence[str], code: int) -> str:
    """Return one line on why vLLM ended, from what it said last and its exit code."""
    if code == -signal.SIGKILL:
        return "it was killed; most likely the machine is out of memory"
    found = [line for line in lines if _is_reason(line)]
    # The first error is the cause, the later ones its consequences in other processes.
    reason = found[0] if found else next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    at = max(reason.find("Error"), reason.find("hangtag:"))
    text = reason[reason.rfind(" ", 0, at) + 1 :] if at > 0 else reason
    return f"{text.strip():.400}; --verbose shows all that it said"


def _is_reason(line: str) -> bool:
    if "hangtag:" in line:
        return True
    head = line.split("] ")[-1].strip()
    name = head.split(":")[0]
    return name.endswith(("Error", "Exception")) and " " not in name and ":" in head


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
