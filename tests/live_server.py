"""The real server in a process of its own, for tests with models."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
KEY = "test-key-test-key-1"
_START_S = 400


class LiveServer:
    """`python -m serve.server` with these options on a free port of this machine."""

    def __init__(self, *options: str) -> None:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serve.server", "--port", "0", *options],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.lines))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))

    def wait_until_ready(self) -> str:
        """Return the server's address once its ready line is there."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            found = re.search(r"ready at (\S+)/v1", "".join(self.out))
            if found:
                return found[1]
            assert self.process.poll() is None, "".join(self.lines[-20:])
            time.sleep(0.2)
        raise AssertionError("the server did not come up: " + "".join(self.lines[-20:]))

    def stop(self, *, timeout_s: float = 60) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()


def metric(url: str, name: str) -> float:
    """Return the sum of a metric's samples."""
    text = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))
