"""Write the results table of a Markdown file from results.json files.

    python -m eval.report docs/results.md eval/results/*/results.json
    python -m eval.report docs/results.md eval/results/*/results.json --check

Output contract: the lines between the two markers `<!-- results:begin -->` and `<!-- results:end -->` of the file
are replaced, nothing else is touched. With --check nothing is written. Exit codes: 0 done (or up to date), 1 the
table is out of date, 2 misused.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.formats import significant
from eval.store import FORMAT
from hangtag import program
from hangtag.errors import DataError
from hangtag.metrics.text import interval, markdown_table

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.report", __doc__)
    parser.add_argument("document", type=Path, metavar="FILE", help="a Markdown file with the two markers")
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="results.json files, in this order"
    )
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    arguments = parser.parse_args(argv)
    return program.run("eval.report", lambda: report(arguments.document, arguments.results, check=arguments.check))


def report(document: Path, results: Sequence[Path], *, check: bool) -> int:
    """Write the table into the file, or say whether it is up to date (exit code 1: it is not).

    Raises:
        HangtagError: a file is refused, or has no place for the table.
    """
    text = _read(document)
    table = results_table([(path, read_results(path)) for path in results], document.parent)
    updated = replace_table(text, table, str(document))
    if check:
        if updated != text:
            print(f"{document}: the results table is out of date; run this without --check")
        return int(updated != text)
    document.write_text(updated, encoding="utf-8")
    return 0


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a results.json.

    Raises:
        DataError: the file is missing, no JSON, or of another format.
    """
    try:
        results = json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); expected a results.json of eval.run") from None
    if not isinstance(results, dict) or results.get("format") != FORMAT or "arms" not in results:
        raise DataError(f"{path}: not results of eval.run in format {FORMAT}; run the evaluation again")
    return results


def results_table(results: Sequence[tuple[Path, dict[str, Any]]], root: Path) -> str:
    """Return the Markdown table of several evaluations, one row an arm, links relative to `root`."""
    rows, notes = [], []
    for path, found in results:
        name = found["dataset"]["name"]
        for arm, held in found["arms"].items():
            figures = [interval(held["figures"][figure]) for figure in ("exact_match", "set_f1", "micro_f1")]
            speed = significant(held["efficiency"]["products_per_s"]["value"])
            shown = f"**{arm}**" if arm == found["best"] else arm
            rows.append([name, shown, str(held["num_products"]), *figures, speed])
        made = found["provenance"]
        commit = (made["commit"] or "no commit")[:7] + ("+" if made["dirty"] else "")
        link = Path(os.path.relpath(path.parent, root)) / "report.md"
        notes.append(f"[{name}]({link.as_posix()}): {made['date'][:10]}, commit {commit}")
    notes_line = "In brackets: 95 % intervals by bootstrap over products. " + "; ".join(notes) + "."
    head = ["dataset", "arm", "products", "exact match", "set-F1", "micro-F1", "products/s"]
    return "\n".join([*markdown_table(head, rows, right=("products", "products/s")), "", notes_line])


def replace_table(text: str, table: str, source: str) -> str:
    """Return `text` with `table` between the markers.

    Raises:
        DataError: a marker is missing, stands twice, or they stand in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"{source}: expected one line {BEGIN} and below it one line {END}")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


if __name__ == "__main__":
    sys.exit(main())
