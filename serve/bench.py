"""Benchmarks of the decoder, of catalogue runs and of the server.

    python -m serve.bench constraint             masks alone, beside xgrammar and llguidance, one thread
    python -m serve.bench decode --data DIR      the whole engine: products/s through vLLM, side by side
    python -m serve.bench catalogue              a catalogue run without its engine: rows/s, memory, resuming
    python -m serve.bench catalogue --data DIR   with its engine: products/s beside vLLM alone and its run-batch
    python -m serve.bench http --start           the server: latency under load, beside a plain vLLM

Tables go to stderr; the last line of stdout is one JSON document with provenance, which --out also writes to a
file. `--short` takes a few minutes instead of many. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hangtag.errors import HangtagError
from serve import bench_catalogue, bench_constraint, bench_decode, bench_http


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    programs = {
        "constraint": bench_constraint,
        "decode": bench_decode,
        "catalogue": bench_catalogue,
        "http": bench_http,
    }
    for name, module in programs.items():
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except HangtagError as error:
        print(f"serve.bench: {error}", file=sys.stderr)
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
