"""Say which figures moved between two evaluations, and fail on a regression; for use in a CI.

    python -m eval.compare eval/results/hm/results.json eval/out/hm/results.json
    python -m eval.compare A/results.json B/results.json --margin 0.01 --arms bert,linear

A is the old state, B the new one, both of the same dataset. Where the predictions lie beside both files, the
difference is taken by paired bootstrap over the products of both; else from the two intervals, which sees less.
A figure has moved if the 95 % interval of its difference (B minus A) does not hold 0. A regression is a gated
figure that moved down by more than the margin, or an arm of A that B lacks.

Output contract: a table on stdout, the last line one JSON document. Exit codes: 0 no regression, 1 a regression,
2 misused.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report import read_results
from eval.score import figures
from eval.settings import split_names
from eval.store import has_predictions, read_context, read_predictions, read_products
from hangtag import metrics, program
from hangtag.errors import DataError, RecipeError

GATED = ("exact_match", "set_f1", "micro_f1", "macro_f1", "jaccard", "validity")
_LOWER_IS_BETTER = ("cardinality_error", "calibration_error")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.compare", __doc__)
    parser.add_argument("old", type=Path, metavar="A", help="results.json of the old state")
    parser.add_argument("new", type=Path, metavar="B", help="results.json of the new state")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.01,
        metavar="M",
        help="a loss up to this much is none (default: %(default)s)",
    )
    parser.add_argument("--arms", metavar="A,B", help="compare these arms only (default: all arms of A)")
    parser.add_argument(
        "--figures", metavar="F,G", default=",".join(GATED), help="figures that can fail it (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)

    def work() -> int:
        if not 0 <= arguments.margin < math.inf:
            raise RecipeError(f"--margin {arguments.margin}: expected a number from 0 on")
        found = compare(arguments.old, arguments.new, arms=split_names(arguments.arms))
        regressions = _regressions(found, split_names(arguments.figures), arguments.margin)
        print(_text(found, regressions, arguments.margin))
        print(json.dumps({"moved": sum(row["moved"] for row in found["rows"]), "regressions": regressions}))
        return 1 if regressions else 0

    return program.run("eval.compare", work)


def compare(old: Path, new: Path, *, arms: Sequence[str] = ()) -> dict[str, Any]:
    """Return every figure's difference, new minus old: `rows`, and the arms of the old state that are `gone`.

    A row has arm, figure, old, new, value (the difference), low, high, moved and method ("paired" or
    "intervals").

    Raises:
        DataError: a file is no results.json, or the two are of different data or vocabularies.
        RecipeError: an arm is in neither.
    """
    before, after = read_results(old), read_results(new)
    for name, path in (("digest", "dataset"), ("fingerprint", "vocabulary")):
        if before[path][name] != after[path][name]:
            raise DataError(
                f"{new}: {path} {after[path][name][:12]}, but {old} has {before[path][name][:12]}; only "
                "evaluations of the same data can be compared"
            )
    unknown = [arm for arm in arms if arm not in before["arms"] and arm not in after["arms"]]
    if unknown:
        raise RecipeError(f"arm {unknown[0]!r} is in neither file; A has {', '.join(before['arms'])}")
    names = [arm for arm in before["arms"] if not arms or arm in arms]
    rows = []
    for arm in names:
        if arm in after["arms"]:
            paired = _paired(old.parent, new.parent, arm)
            rows += paired if paired is not None else _by_intervals(before["arms"][arm], after["arms"][arm], arm)
    return {"rows": rows, "gone": [arm for arm in names if arm not in after["arms"]]}


def _paired(old: Path, new: Path, arm: str) -> list[dict[str, Any]] | None:
    """Return the differences by paired bootstrap, or None where the predictions do not lie beside both."""
    if not (has_predictions(old, arm) and has_predictions(new, arm)):
        return None
    sides = [(read_context(out), read_products(out), read_predictions(out, arm)) for out in (old, new)]
    shared = set(sides[0][2].ids) & set(sides[1][2].ids)
    ids = [name for name in sides[0][2].ids if name in shared]
    if not ids:
        return None
    context = sides[0][0]
    found = []
    for side, products, whole in sides:
        held = whole.only(ids)
        functions = figures(
            held.outcomes(products, side.vocabulary),
            [products[name] for name in ids],
            side.vocabulary,
            side.train_counts,
        )
        confidences = held.confidences(products)
        if len(confidences):
            functions["calibration_error"] = functools.partial(metrics.calibration_error, confidences)
        found.append(context.resample(functions, len(ids)))
    before, after = found
    changes = after.exceeds(before)
    rows = [
        _row(arm, name, a, after.values[name], changes[name].low, changes[name].high, "paired")
        for name, a in before.values.items()
        if name in changes
    ]
    return [row for row in rows if row]


def _by_intervals(old: dict[str, Any], new: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    """Return the differences, their intervals from the half-widths of both as if the products were others."""
    rows = []
    for name, a in old["figures"].items():
        b = new["figures"].get(name)
        if b is None or None in (a["value"], a["low"], b["value"], b["low"]):
            continue
        difference = b["value"] - a["value"]
        below = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
        above = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
        rows.append(_row(arm, name, a["value"], b["value"], difference - below, difference + above, "intervals"))
    return [row for row in rows if row]


def _row(arm: str, name: str, a: float, b: float, low: float, high: float, method: str) -> dict[str, Any] | None:
    if any(map(math.isnan, (a, b, low, high))):
        return None
    return {
        "arm": arm, "figure": name, "old": a, "new": b, "value": b - a, "low": low, "high": high,
        "moved": low > 0 or high < 0, "method": method,
    }  # fmt: skip


def _regressions(found: dict[str, Any], gated: Sequence[str], margin: float) -> list[str]:
    known = {row["figure"] for row in found["rows"]}
    for name in gated:
        if known and name not in known and name not in GATED:
            raise RecipeError(f"figure {name!r} is in neither file; expected some of {', '.join(sorted(known))}")
    lost = [f"{arm} is gone" for arm in found["gone"]]
    for row in found["rows"]:
        loss = row["value"] if row["figure"] in _LOWER_IS_BETTER else -row["value"]
        if row["figure"] in gated and row["moved"] and loss > margin:
            lost.append(f"{row['arm']} {row['figure']} {row['value']:+.4f}")
    return lost


def _text(found: dict[str, Any], regressions: Sequence[str], margin: float) -> str:
    moved = [row for row in found["rows"] if row["moved"]]
    lines = [
        f"{row['arm']}  {row['figure']}: {row['old']:.4f} -> {row['new']:.4f}  "
        f"({row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], {row['method']})"
        for row in moved
    ]
    count = len(found["rows"])
    lines.append(
        f"{len(moved)} of {count} figures moved beyond noise; chance alone moves about {0.05 * count:.0f}."
    )
    lines += [f"Regression beyond {margin}: {line}" for line in regressions] or [f"No regression beyond {margin}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
