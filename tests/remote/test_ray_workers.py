"""A local Ray cluster of two workers, one of which is killed on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, os, signal, sys, threading, time
from collections.abc import Iterable, Iterator
from hangtag import Product, TagVocabulary
from hangtag.remote import ray_workers
from serve import generate

killed = []
start = ray_workers.RayWorkers.__init__

def watched(self, *arguments, **options):
    start(self, *arguments, batch=32, **options)
    process = self._ray.get(self.workers[0].process.remote())

    def kill():
        time.sleep(0.3)
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    threading.Thread(target=kill).start()

ray_workers.RayWorkers.__init__ = watched
code = generate.main(sys.argv[1:])
assert killed, "the worker was not killed"
os._exit(code)
"""


@pytest.mark.model
def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from tests.catalogue_kills import command, outcome, write_catalogue

    catalogue = tmp_path / "in.jsonl"
    write_catalogue(catalogue, 30_000, 0)
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def run(program: list[str], *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 3, done.stderr[-3000:]

    run(["-m", "serve.generate"], *command(catalogue, tmp_path / "one", "null"))
    ray = [*command(catalogue, tmp_path / "many", "null"), "--engine", "ray", "--worker-engine", "null"]
    run(["-c", PROGRAM], *ray, "--workers", "2")
    assert outcome(tmp_path / "one") == outcome(tmp_path / "many")
