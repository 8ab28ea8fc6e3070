"""Benchmarks of the decoder, of catalogue runs, of imports, of the server and of the trainer.

    python -m bench constraint             masks alone, beside xgrammar and llguidance, one thread
    python -m bench decode --data DIR      the whole engine: products/s through vLLM, side by side
    python -m bench catalogue              a catalogue run without its engine: rows/s, memory, resuming
    python -m bench catalogue --data DIR   with its engine: products/s beside vLLM alone and its run-batch
    python -m bench http --start           the server: latency under load, beside a plain vLLM
    python -m bench taxonomy               a taxonomy of 11,000 categories made and imported: seconds by format
    python -m bench training               the trainer: samples/s beside a bare loop over the same batches

Tables go to stderr; the last line of stdout is one JSON document with provenance, which --out also writes to a
file. Where there is a
`--short`, it takes a few minutes instead of many. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import catalogue, constraint, decode, http, taxonomy, training
from hangtag import program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m bench", __doc__)
    commands = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    programs = {
        "constraint": constraint,
        "decode": decode,
        "catalogue": catalogue,
        "http": http,
        "taxonomy": taxonomy,
        "training": training,
    }
    for name, module in programs.items():
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    return program.run("bench", lambda: arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
