"""What a catalogue run costs beside its engine: reading, keys, parts, ledger.

    python -m bench catalogue --rows 10000 1000000 10000000
    python -m bench catalogue --data ../shared/data/hm

The first form: synthetic Parquet catalogues of distinct products go through `serve.generate` with an engine that
draws tags from a hash, in a process pinned to one core. Reported for each size: rows/s by the clock and by
processor time (on a machine with other work the second is the fair one), peak resident memory, and the seconds
from the start of a run that goes on until its first part is written, when all rows but the last part's are done.

The second: real products through a real engine, beside vLLM alone and its batch runner; see
bench/catalogue_engine.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sqlite3
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.catalogue_engine import measure
from hangtag.errors import EngineError, RecipeError
from hangtag.loading import DEFAULT_MODEL
from hangtag.manifest import provenance, write_json
from hangtag.sample import sample_folder

_GROUP = 100_000
_WORDS = (
    *("red", "blue", "green", "canvas", "leather", "steel", "running", "trail", "kids", "sneakers"),
    *("boots", "jacket", "bottle", "lamp", "shelf", "waterproof", "vegan", "organic", "cotton", "light"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000], metavar="N",
        help="sizes of the catalogues (default: 10000 1000000 10000000)",
    )  # fmt: skip
    parser.add_argument("--short", action="store_true", help="10,000 and 100,000 rows")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a labelled dataset, whose products a real engine tags"
    )
    parser.add_argument(
        "--products", type=int, default=2000, metavar="N", help="with --data: how many (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=4,
        metavar="N",
        help="with --data: turns of each contestant, every one with "
        "its share of the products (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="M",
        help="with --data: the language model (default: %(default)s)",
    )
    parser.add_argument(
        "--run",
        dest="run_directory",
        type=Path,
        metavar="DIR",
        help="with --data: an exported run of sft.train in place of --model",
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work (default: a temporary folder)")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code."""
    if not 1 <= arguments.rounds <= arguments.products:
        raise RecipeError("--rounds: expected at least 1, and --products at least one a round")
    document = measure(arguments) if arguments.data else _measure_null(arguments)
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document))
    return 0


def _measure_null(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = [10_000, 100_000] if arguments.short else arguments.rows
    if min(sizes) < 1:
        raise RecipeError(f"--rows {min(sizes)}: expected at least 1")
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results.append(_measure(Path(folder), size))
        print(json.dumps(results[-1]), file=sys.stderr)
    return {"benchmark": "catalogue", "engine": "null", "results": results, "provenance": provenance()}


def write_catalogue(path: Path, num_rows: int) -> None:
    """Write a Parquet catalogue of distinct products: titles of four words, descriptions of ten."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    draw = np.random.default_rng(0)
    words = pa.array(_WORDS)
    schema = pa.schema([("id", pa.string()), ("title", pa.string()), ("description", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, _GROUP):
            size = min(_GROUP, num_rows - start)
            numbers = pa.array(np.arange(start, start + size)).cast(pa.string())
            drawn = [words.take(pa.array(draw.integers(0, len(words), size))) for _ in range(13)]
            title = pc.binary_join_element_wise(*drawn[:3], numbers, " ")
            description = pc.binary_join_element_wise(*drawn[3:], " ")
            writer.write_table(pa.table([numbers, title, description], schema=schema), row_group_size=_GROUP)


def _measure(folder: Path, num_rows: int) -> dict[str, Any]:
    catalogue, out = folder / "in.parquet", folder / "out"
    write_catalogue(catalogue, num_rows)
    command = [str(catalogue), str(out), "--vocabulary", str(sample_folder() / "vocabulary.json")]
    command += ["--engine", "null", "--quiet"]
    whole = _in_process(command)
    _undo_last_part(out)
    again = _in_process(command)
    return {
        "rows": num_rows,
        "rows_per_s": round(num_rows / whole["seconds"]),
        "rows_per_cpu_s": round(num_rows / whole["cpu_s"]),
        "seconds": round(whole["seconds"], 1),
        "cpu_s": round(whole["cpu_s"], 1),
        "peak_rss_mib": round(whole["peak_rss_mib"], 1),
        "input_mib": round(catalogue.stat().st_size / 2**20, 1),
        "output_mib": round(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 2**20, 1),
        "resume_first_part_s": round(again["first_part_s"], 2),
    }


def _undo_last_part(out: Path) -> None:
    """Bring a finished folder to the state of a run that was killed before its last part was entered."""
    with sqlite3.connect(out / "ledger.sqlite") as database:
        database.execute("UPDATE editions SET state='running'")
        database.execute("DELETE FROM parts WHERE number=(SELECT max(number) FROM parts)")
    database.close()


def _in_process(command: list[str]) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, command))
    process.start()
    theirs.close()
    try:
        result: dict[str, float] = ours.recv()
    except EOFError:
        raise EngineError("the run under measurement ended; what it said stands above") from None
    process.join()
    return result


def _work(connection: Connection, command: list[str]) -> None:
    from serve import generate

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    start, cpu = time.perf_counter(), time.process_time()
    first: list[float] = []

    def step(name: str) -> None:
        if name == ".parquet written" and not first:
            first.append(time.perf_counter() - start)

    sys.stdout = sys.stderr
    code = generate.main(command, step=step)
    if code:
        raise SystemExit(code)
    connection.send(
        {
            "seconds": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
            "peak_rss_mib": _peak_mib(),
            "first_part_s": first[0] if first else 0.0,
        }
    )


def _peak_mib() -> float:
    """Return this process's peak resident memory.

    On Linux from /proc: `getrusage` counts the process that forked this one, too.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
