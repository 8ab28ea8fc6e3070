"""Measure whether explanations are faithful: what tags lose by their top span, and by a random one of its length.

    python -m eval.faithfulness --data DIR --out eval/results/explain_mine.json

Fits the linear tagger on the first `--train` training products, tags `--products` test products, and deletes
from each, for each of its tags, the span that speaks most for the tag, or as many characters at a random place.
Spans are those of the tagger's weights ("linear") and of words that name the tag ("words"); the loss is that of
the tagger's probability. The curve is the share of (product, tag) pairs that lose at least so much. Intervals
(95 %) are by bootstrap over pairs.

The last line of stdout is the path of the JSON written. Exit codes: 0 done, 2 misused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag import program
from hangtag.baselines.linear import LinearTagger
from hangtag.catalogue.labelled import load_dataset
from hangtag.errors import DataError, RecipeError
from hangtag.explain.faithfulness import losses
from hangtag.explain.linear import LinearExplainer
from hangtag.explain.spans import Explainer
from hangtag.explain.words import WordExplainer
from hangtag.manifest import write_json

SEED = 17
_CURVE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_RESAMPLES = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.faithfulness", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="the JSON to write")
    parser.add_argument("--train", type=int, default=6000, metavar="N", help="training products (default: 6000)")
    parser.add_argument("--products", type=int, default=300, metavar="N", help="test products (default: 300)")
    arguments = parser.parse_args(argv)

    def work() -> int:
        if min(arguments.train, arguments.products) < 1:
            raise RecipeError("--train and --products: expected 1 or more")
        found = measure(arguments.data, arguments.train, arguments.products)
        write_json(arguments.out, found)
        for name, one in found["explainers"].items():
            print(f"{name}: top {one['top']}, random {one['random']}, {one['pairs']} pairs")
        print(arguments.out)
        return 0

    return program.run("eval.faithfulness", work)


def measure(folder: Path, num_train: int, num_products: int) -> dict[str, Any]:
    """Return the losses of both explainers on a dataset. Raises DataError: it is none."""
    data = load_dataset(folder)
    tagger = LinearTagger.fit(data.train[:num_train], data.validation, data.vocabulary)
    products = data.test[:num_products]
    tags = [tagging.names for tagging in tagger.tag(products)]
    explainers: dict[str, Explainer] = {
        "linear": LinearExplainer(tagger),
        "words": WordExplainer(data.vocabulary),
    }
    found = {}
    for name, explainer in explainers.items():
        lost = losses(tagger.log_odds, explainer, products, tags, data.vocabulary, seed=SEED)
        if not len(lost.top):
            raise DataError(f"{folder}: no tag of {len(products)} test products has a span; take more --products")
        found[name] = {
            "pairs": len(lost.top),
            "top": _mean(lost.top),
            "random": _mean(lost.random),
            "top_loses_more": _mean((lost.top > lost.random).astype(np.float64)),
            "curve": {
                str(least): [round(float((some >= least).mean()), 4) for some in (lost.top, lost.random)]
                for least in _CURVE
            },
        }
    return {
        "data": {"name": folder.name, "digest": data.digest, "train": min(num_train, len(data.train))},
        "products": len(products),
        "seed": SEED,
        "explainers": found,
    }


def _mean(values: npt.NDArray[np.float64]) -> list[float]:
    """Return mean and interval."""
    draw = np.random.default_rng(SEED)
    means = [values[draw.integers(len(values), size=len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(value), 4) for value in (values.mean(), low, high)]


if __name__ == "__main__":
    sys.exit(main())
