"""Kill a catalogue run again and again, at random moments and inside renames, syncs and commits.

    python -m tests.catalogue_kills --kills 200 --out eval/results/catalogue_kills.json
    python -m tests.catalogue_kills --kills 5 --engine vllm --rows 200

Series after series, the same command runs on one output folder and is killed (SIGKILL) until it completes; files
that the ledger does not hold are cut short at random in between, as a power failure would leave them. Every row of
the outcome must be that of an uninterrupted run, and every file of its parts byte for byte. The last line of
stdout is one JSON document. Exit codes: 0 all equal, 1 not. A real engine is killed while it tags, as its progress
bar tells: each kill falls after the bar has moved. Confidences may differ in their last digits then, and by how
much is reported: an engine's arithmetic depends on which products share a batch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hangtag import Product, Tagging
from hangtag.baselines.null import NullTagger
from hangtag.bulk import edition
from hangtag.manifest import provenance, write_json
from hangtag.sample import sample_folder
from serve import generate

VOCABULARY = sample_folder() / "vocabulary.json"
PART_ROWS = 250


def write_catalogue(path: Path, num_rows: int, seed: int) -> None:
    """Write JSON Lines with doubles, malformed rows, and texts of every length and script."""
    draw = random.Random(seed)
    words = ["red", "shoes", "防水", "crème", "steel", "lunch box", "😀", "kids'", '"quoted"', "cotton"]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(num_rows):
            if draw.random() < 0.01:
                stream.write(draw.choice(["broken", '{"id": "x"}', "[1]", '{"id":"y","title":{"en":"x"}}']) + "\n")
                continue
            about = random.Random(draw.randrange(num_rows))
            text = " ".join(about.choices(words, k=1 + int(about.expovariate(0.1))))
            row = {
                "id": f"p{number:06d}",
                "title": text[:60],
                "description": text,
                "attributes": {"no": text[-3:]},
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def command(catalogue: Path, out: Path, engine: str) -> list[str]:
    """Return the arguments of the run under test."""
    rows = str(PART_ROWS if engine == "null" else 20)
    options = ["--engine", engine, "--part-rows", rows, "--window", "512"]
    options += ["--quiet"] if engine == "null" else ["--max-tags", "3"]
    return [str(catalogue), str(out), "--vocabulary", str(VOCABULARY), *options]


def outcome(out: Path) -> tuple[str, dict[str, str]]:
    """Return a digest of all rows sorted by id, and the digest of each file of the parts."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    rows, files = [], {}
    for part in manifest["parts"]:
        path = out / part["file"]
        files[part["file"]] = hashlib.sha256(path.read_bytes()).hexdigest()
        rows += [
            json.dumps(row, default=str, sort_keys=True)
            for row in pq.read_table(path, use_threads=False).to_pylist()
        ]
    digest = hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
    return digest, files


def taggings(out: Path) -> list[dict[str, Any]]:
    """Return all rows in their order."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    paths = [out / part["file"] for part in manifest["parts"]]
    return [row for path in paths for row in pq.read_table(path, use_threads=False).to_pylist()]


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float | None:
    """Return the largest difference of a confidence; None if the rows differ in anything else."""
    largest = 0.0
    if len(one) != len(other):
        return None
    for row, twin in zip(one, other, strict=True):
        if {**row, "tags": [t["tag"] for t in row["tags"]]} != {**twin, "tags": [t["tag"] for t in twin["tags"]]}:
            return None
        for tag, same in zip(row["tags"], twin["tags"], strict=True):
            largest = max(largest, abs((tag["confidence"] or 0.0) - (same["confidence"] or 0.0)))
    return largest


class Killer:
    """Ends this process at a step of a durable write; `-1` never."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, name: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _child(arguments: list[str], kill_at: int, journal_s: float, asked: Any) -> None:
    stream = NullTagger.stream

    def counted(self: NullTagger, products: Iterable[Product]) -> Iterator[Tagging]:
        for tagging in stream(self, products):
            # Without a lock: one child runs at a time, and one that is killed would hold it for ever.
            asked.value += 1
            yield tagging

    NullTagger.stream = counted  # type: ignore[method-assign]
    edition._JOURNAL_S = journal_s
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    code = generate.main(arguments, step=Killer(kill_at))
    os._exit(code)


def run_once(arguments: list[str], draw: random.Random, asked: Any) -> tuple[str, int | None]:
    """Run in a forked process and kill it; return how it was killed, and its exit code if it ended before."""
    at_step = draw.random() < 0.6
    kill_at = draw.randint(1, 60) if at_step else -1
    journal_s = draw.choice([0.02, 5.0])
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(arguments, kill_at, journal_s, asked)
    )
    process.start()
    if not at_step:
        process.join(draw.uniform(0.0, 0.5))
        if process.is_alive():
            process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    return ("step" if at_step else "moment"), None if killed else process.exitcode


class EngineRun:
    """A run with a real engine, in a session of its own that is killed whole."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve.generate", *arguments],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._is_tagging = threading.Event()
        self._began = 0.0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        """Watch the progress bar until the process ends."""
        first = None
        assert self._process.stderr is not None
        # A carriage return ends a line, too.
        for line in self._process.stderr:
            if bar := re.search(r"(\d+)/\d+ \[", line):
                first = bar[1] if first is None else first
                if bar[1] != first and not self._is_tagging.is_set():
                    self._began = time.monotonic()
                    self._is_tagging.set()
        self._is_tagging.set()

    def finish(self) -> tuple[int, float]:
        """Return the exit code and for how many seconds it tagged."""
        code = self._process.wait()
        seconds = time.monotonic() - self._began
        self._reader.join()
        return code, seconds

    def kill(self, after_s: float) -> int | None:
        """Kill it that long after it began to tag; return the exit code if it ended before."""
        self._is_tagging.wait()
        try:
            code = self._process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            code = None
        self._reader.join()
        return code


def tear_unentered(out: Path, draw: random.Random) -> int:
    """Cut short what the ledger does not hold; return the number of files."""
    if not (out / "ledger.sqlite").exists():
        return 0
    with sqlite3.connect(out / "ledger.sqlite") as database:
        try:
            entered = set(database.execute("SELECT edition, number FROM parts"))
        except sqlite3.OperationalError:
            entered = set()
    database.close()
    torn = 0
    for path in [*out.glob("parts-*/*"), *out.glob("index/*/part-*")]:
        edition_number = int(path.parent.name.removeprefix("parts-"))
        if path.name.endswith(".partial") or (edition_number, int(path.stem.removeprefix("part-"))) not in entered:
            os.truncate(path, draw.randint(0, path.stat().st_size))
            torn += 1
    return torn


def prove(*, kills: int, num_rows: int, engine: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return the summary: kills by kind, series, what differed."""
    draw = random.Random(seed)
    catalogue = folder / "catalogue.jsonl"
    write_catalogue(catalogue, num_rows, seed)
    asked = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    began = time.monotonic()
    if engine == "null":
        process = multiprocessing.get_context("fork").Process(
            target=_child, args=(command(catalogue, folder / "whole", engine), -1, 5.0, asked)
        )
        process.start()
        process.join()
        code, work_s = process.exitcode, 0.0
    else:
        code, work_s = EngineRun(command(catalogue, folder / "whole", engine)).finish()
    if code not in (0, 3):
        raise RuntimeError(f"the uninterrupted run ended with {code}")
    distinct = asked.value
    expected, expected_files = outcome(folder / "whole")
    expected_taggings = taggings(folder / "whole")
    gaps: list[float] = []
    counts: Counter[str] = Counter()
    redone, different = [], []
    while sum(counts[kind] for kind in ("step", "moment")) < kills:
        out = folder / f"series{counts['series']}"
        asked.value = 0
        killed_here = 0
        while True:
            arguments = command(catalogue, out, engine)
            is_enough = sum(counts[kind] for kind in ("step", "moment")) >= kills
            if engine == "null":
                kind, code = run_once(arguments, draw if not is_enough else _Gentle(), asked)
            else:
                run = EngineRun(arguments)
                kind = "moment"
                code = run.finish()[0] if is_enough else run.kill(draw.uniform(0.0, work_s * 0.6))
            if code is not None:
                break
            counts[kind] += 1
            killed_here += 1
            counts["torn files"] += tear_unentered(out, draw)
        if code not in (0, 3):
            different.append(f"series {counts['series']}: exit code {code}")
        else:
            digest, files = outcome(out)
            gap = difference(taggings(out), expected_taggings)
            if gap is None:
                different.append(f"series {counts['series']}: other rows")
            elif engine != "null":
                # Which products share a batch moves the last digits of an engine's arithmetic.
                gaps.append(gap)
                counts["same bytes"] += files == expected_files
            elif digest != expected or files != expected_files:
                different.append(f"series {counts['series']}: other bytes")
            redone.append((asked.value - distinct) / max(1, killed_here))
        counts["series"] += 1
        shutil.rmtree(out)
    return {
        "rows": num_rows,
        "engine": engine,
        "seed": seed,
        "kills": (
            {"at a step of a write": counts["step"], "at a random moment": counts["moment"]}
            if engine == "null"
            else {"while tagging": counts["moment"]}
        ),
        "series": counts["series"],
        "files torn between runs": counts["torn files"],
        **(
            {
                "distinct products": distinct,
                "taggings made again per kill, largest series": round(max(redone, default=0), 1),
            }
            if engine == "null"
            else {
                "series with the very same bytes": counts["same bytes"],
                "largest difference of a confidence": max(gaps, default=None),
            }
        ),
        "different": different,
        "seconds": round(time.monotonic() - began, 1),
    }


class _Gentle(random.Random):
    """Draws that end no run."""

    def random(self) -> float:
        return 1.0

    def uniform(self, a: float, b: float) -> float:
        return 600.0

    def choice(self, options: Any) -> Any:
        return options[-1]


def main() -> int:
    """Run the proof and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=5000, metavar="N", help="rows (default: %(default)s)")
    parser.add_argument("--engine", default="null", metavar="E", help="null or vllm (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = prove(
            kills=arguments.kills,
            num_rows=arguments.rows,
            engine=arguments.engine,
            seed=arguments.seed,
            folder=Path(folder),
        )
    document = {"proof": "catalogue_kills", **summary, "provenance": provenance()}
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document))
    return 1 if summary["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
