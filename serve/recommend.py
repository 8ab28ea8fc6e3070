"""Recommend products to all customers: Parquet parts, and a run that goes on after any end.

    python -m serve.recommend interactions.csv products.jsonl OUT
    python -m serve.recommend log.parquet tagged.parquet LISTS --map user=customer_id --count 20

INTERACTIONS is CSV, JSON Lines (also .gz) or Parquet with user, item, time and, optionally, weight. ITEMS is a
file of products with tags or of taggings. OUT is a folder:

    part-NNNNNN.parquet   user, rank (from 1), item, score, reasons (list), for --part-size customers each
    run.json              what the parts are made of
    manifest.json         written last: the parts are complete

The same command goes on after a crash, at the first part that is missing. Interactions are held in memory (some 40
bytes each), lists a part at a time. Progress goes to stderr; the last line of stdout is one JSON document with the
counts. Exit codes: 0 done, 1 failed or interrupted, 2 misused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.durable import replaced
from hangtag.errors import DataError, RecipeError
from hangtag.manifest import file_sha256, provenance, write_json
from hangtag.recommend_commands import add_fit_arguments, add_list_arguments, fit

_DECIDING = ("map", "cut", "horizon", "count", "without_repeats", "new_every", "part_size", "reasons")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m serve.recommend", __doc__)
    add_fit_arguments(parser, are_positional=True)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--count", type=int, default=12, metavar="K", help="products a customer (default: %(default)s)"
    )
    add_list_arguments(parser)
    parser.add_argument(
        "--part-size", type=int, default=10_000, metavar="N", help="customers a part (default: %(default)s)"
    )
    parser.add_argument(
        "--no-reasons", dest="reasons", action="store_false", help="leave reasons empty; some ten times as fast"
    )
    arguments = parser.parse_args(argv)
    return program.run(
        "serve.recommend",
        lambda: _recommend(arguments),
        interrupted="interrupted; the same command goes on where it stopped",
    )


def _recommend(arguments: argparse.Namespace) -> int:
    if arguments.part_size < 1:
        raise RecipeError(f"--part-size {arguments.part_size}: expected at least 1")
    out: Path = arguments.out
    made_of = _begin(out, arguments)
    recommender = fit(arguments)
    users = list(recommender.users)
    num_parts = -(-len(users) // arguments.part_size)
    done = 0
    with program.progress("recommending", "customer", total=len(users)) as bar:
        for number in range(num_parts):
            start = number * arguments.part_size
            part = users[start : start + arguments.part_size]
            path = out / f"part-{number:06d}.parquet"
            if not path.is_file():
                _write_part(path, recommender, start, part, arguments)
                done += 1
            bar.update(len(part))
    counts = {"customers": len(users), "parts": num_parts, "written": done}
    write_json(out / "manifest.json", {**made_of, **counts, "provenance": provenance()})
    print(json.dumps(counts))
    return 0


def _begin(out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the parts are made of; it is written, or must be what the folder says."""
    made_of: dict[str, Any] = {name: getattr(arguments, name) for name in _DECIDING}
    for name in ("interactions", "items", "vocabulary"):
        path = getattr(arguments, name)
        if path is not None and not Path(path).is_file():
            raise DataError(f"{path}: no such file; expected {name}")
        made_of[name] = file_sha256(path) if path else None
    made_of["code"] = hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted((Path(_package()) / "recommend").glob("*.py")))
    ).hexdigest()
    record = out / "run.json"
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != made_of:
            raise DataError(f"{out}: holds lists of other inputs or options; choose another folder or remove it")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, made_of)
    return made_of


def _package() -> str:
    import hangtag

    return str(Path(hangtag.__file__).parent)


def _write_part(
    path: Path, recommender: Any, start: int, users: Sequence[str], arguments: argparse.Namespace
) -> None:
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    from hangtag.recommend.reasons import reasons

    history = recommender.history[np.arange(start, start + len(users))]
    ranked, scores = recommender.recommend(
        history, arguments.count, with_taken=not arguments.without_repeats, new_every=arguments.new_every
    )
    is_given = np.isfinite(scores)
    row, place = np.nonzero(is_given)
    columns = {
        "user": pyarrow.array([users[number] for number in row], pyarrow.string()),
        "rank": pyarrow.array(place + 1, pyarrow.int32()),
        "item": pyarrow.array([recommender.items.ids[item] for item in ranked[is_given]], pyarrow.string()),
        "score": pyarrow.array(scores[is_given], pyarrow.float32()),
        "reasons": pyarrow.array(
            [
                list(reasons(history[np.array([number])], int(item), recommender.items, recommender.sources))
                if arguments.reasons
                else []
                for number, item in zip(row, ranked[is_given], strict=True)
            ],
            pyarrow.list_(pyarrow.string()),
        ),
    }
    with replaced(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


if __name__ == "__main__":
    sys.exit(main())
