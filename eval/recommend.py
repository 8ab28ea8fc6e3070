"""Compare ways of recommending on the same users: products and next tags, or tags that a person gives to an item.

    python -m eval.recommend --data ../shared/data/gift_shop --horizon 39
    python -m eval.recommend --data ../shared/data/ifdb --cut last --horizon 30
    python -m eval.recommend --data ../shared/data/lastfm_tags

DIR holds items.jsonl.gz and vocabulary.json with interactions_train and interactions_test (.csv.gz; user, day,
item, weight), or assignments_train and assignments_test (user, day, item, tag). Nothing is chosen on the test
files: weights are learned behind a cut of train that looks like the one between train and test, --cut, --horizon.

Output contract: --out gets recommend.json (all figures) and report.md. Prints report.md; the last line of stdout
is the path of recommend.json. Progress goes to stderr. Exit codes: 0 done, 2 misused.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.errors import DataError, RecipeError
from hangtag.manifest import provenance, write_json

SEED, RESAMPLES = 0, 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.recommend", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="items with train and test files")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (default: eval/out/recommend_NAME)"
    )
    parser.add_argument(
        "--cut",
        choices=("time", "last"),
        default="time",
        help="time: test lies behind a day; last: test is the last takings of each user (default: %(default)s)",
    )
    parser.add_argument(
        "--horizon", type=float, default=30.0, metavar="DAYS", help="days ahead (default: %(default)s)"
    )
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    return program.run("eval.recommend", lambda: _run(arguments, [*(argv if argv is not None else sys.argv[1:])]))


def _run(arguments: Any, words: Sequence[str]) -> int:
    folder: Path = arguments.data
    if arguments.resamples < 1 or not arguments.horizon > 0:
        raise RecipeError("--resamples and --horizon: expected numbers above 0")
    start = time.monotonic()
    if (folder / "assignments_train.csv.gz").is_file():
        from eval.recommend_tags import evaluate_tags

        found = evaluate_tags(folder, resamples=arguments.resamples, seed=SEED)
    elif (folder / "interactions_train.csv.gz").is_file():
        from eval.recommend_products import evaluate_products
        from hangtag.recommend.cut import Cut

        cut = Cut(arguments.cut, arguments.horizon)
        found = evaluate_products(folder, cut, resamples=arguments.resamples, seed=SEED)
    else:
        raise DataError(f"{folder}: neither interactions_train.csv.gz nor assignments_train.csv.gz; expected one")
    found |= {
        "dataset": folder.resolve().name,
        "command": shlex.join(["python", "-m", "eval.recommend", *words]),
        "seed": SEED,
        "resamples": arguments.resamples,
        "seconds": time.monotonic() - start,
        "provenance": provenance(),
    }
    from eval.recommend_report import markdown

    out = arguments.out or Path("eval/out") / f"recommend_{found['dataset']}"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "recommend.json", found)
    text = markdown(found)
    (out / "report.md").write_text(text, encoding="utf-8")
    print(f"{text}\n{out / 'recommend.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
