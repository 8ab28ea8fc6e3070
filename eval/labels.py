"""Simulate reviewing: how good does a tagger become with each hundred labels, by the order in which people label?

    python -m eval.labels --data DIR --out eval/results/labels_mine.json

From `--pool` training products, `--batch` are labelled at random; the linear tagger is fitted on them (one in five
kept back for its thresholds) and scored by set-F1 on `--products` test products. Then each order asks for the next
`--batch`: "random"; "least", those with the lowest expected set-F1; "informative", uncertainty x density, spread
out, as the review desk orders them. Labels are the dataset's own. Repeated for `--seeds` draws of pool and first
batch.

`needed` says how many labels reach 0.9 of the set-F1 that random order ends with, interpolated. The last line of
stdout is the path of the JSON written. Exit codes: 0 done, 2 misused.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag import program
from hangtag.baselines.facet_decoding import decode_scores, set_f1_of, tag_matrix
from hangtag.baselines.linear import LinearTagger
from hangtag.catalogue.labelled import Dataset, load_dataset
from hangtag.desk.informative import information, sketch, spread_out
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.errors import RecipeError
from hangtag.loading import split_examples
from hangtag.manifest import write_json
from hangtag.product import Product

ORDERS = ("random", "least", "informative")
_SHARE = 0.9
_ENCODED_AT_ONCE = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program.parser("python -m eval.labels", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="the JSON to write")
    for name, default, what in (
        ("pool", 3000, "training products to choose from"),
        ("batch", 100, "labels a round"),
        ("rounds", 10, "rounds after the first"),
        ("products", 1000, "test products"),
        ("seeds", 2, "repetitions"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: {default})"
        )
    arguments = parser.parse_args(argv)

    def work() -> int:
        if min(arguments.pool, arguments.rounds, arguments.products, arguments.seeds) < 1 or arguments.batch < 5:
            raise RecipeError("expected numbers of 1 or more, and --batch of 5 or more")
        if arguments.batch * (arguments.rounds + 1) > arguments.pool:
            raise RecipeError(f"--pool {arguments.pool}: fewer than the labels of all rounds")
        data = load_dataset(arguments.data, ("train", "test"))
        found = simulate(
            data, **{name: getattr(arguments, name) for name in ("pool", "batch", "rounds", "products", "seeds")}
        )
        write_json(arguments.out, found)
        for order, curve in found["set_f1"].items():
            print(f"{order}: {curve}, needed {found['needed'][order]}")
        print(arguments.out)
        return 0

    return program.run("eval.labels", work)


def simulate(data: Dataset, *, pool: int, batch: int, rounds: int, products: int, seeds: int) -> dict[str, Any]:
    """Return the curves of all orders: set-F1 after each round, the mean over the seeds."""
    began = time.process_time()
    curves: dict[str, list[list[float]]] = {order: [] for order in ORDERS}
    with program.progress("labels", "fit", total=seeds * len(ORDERS) * (rounds + 1)) as bar:
        for seed in range(seeds):
            places = np.random.default_rng(seed).permutation(len(data.train))[:pool]
            simulation = _Simulation(data, [data.train[place] for place in places], data.test[:products])
            for order in ORDERS:
                curves[order].append(simulation.curve(order, batch, rounds, bar.update))
    means = {order: np.mean(some, axis=0) for order, some in curves.items()}
    labels = [batch * number for number in range(1, rounds + 2)]
    goal = _SHARE * float(means["random"][-1])
    return {
        "data": {"name": data.folder.name, "digest": data.digest},
        "settings": {"pool": pool, "batch": batch, "products": products, "seeds": seeds},
        "cpu_seconds": round(time.process_time() - began),
        "labels": labels,
        "set_f1": {order: [round(float(value), 4) for value in curve] for order, curve in means.items()},
        "by_seed": {
            order: [[round(value, 4) for value in curve] for curve in some] for order, some in curves.items()
        },
        "goal": round(goal, 4),
        "needed": {order: _needed(labels, curve, goal) for order, curve in means.items()},
    }


class _Simulation:
    """One pool with its vectors; `curve` labels it from the start in one order."""

    def __init__(self, data: Dataset, pool: list[Product], test: Sequence[Product]) -> None:
        self._pool, self._test, self._vocabulary = pool, list(test), data.vocabulary
        self._gold = tag_matrix((product.tags or () for product in test), data.vocabulary)
        texts = [product.text for product in pool]
        encoder = TfidfEncoder(texts)
        parts = range(0, len(texts), _ENCODED_AT_ONCE)
        self._vectors = np.concatenate([sketch(encoder.encode(texts[at : at + _ENCODED_AT_ONCE])) for at in parts])

    def curve(self, order: str, batch: int, rounds: int, fitted: Any) -> list[float]:
        # The pool is in random order: its first products are a random batch.
        labelled = list(range(batch))
        found = []
        for number in range(rounds + 1):
            train, validation = split_examples([self._pool[place] for place in labelled])
            tagger = LinearTagger.fit(train, validation, self._vocabulary)
            _, chosen = self._answers(tagger, self._test)
            found.append(set_f1_of(chosen, self._gold))
            fitted()
            if number < rounds:
                labelled += self._next(order, tagger, labelled, batch)
        return found

    def _next(self, order: str, tagger: LinearTagger, labelled: list[int], batch: int) -> list[int]:
        left = np.setdiff1d(np.arange(len(self._pool)), labelled)
        if order == "random":
            return [int(place) for place in left[:batch]]
        chances, chosen = self._answers(tagger, [self._pool[place] for place in left])
        uncertainty = 1 - _expected_f1(chances, chosen)
        if order == "least":
            best = np.argsort(-uncertainty, kind="stable")[:batch].tolist()
        else:
            vectors = self._vectors[left]
            best = spread_out(information(uncertainty, vectors), vectors, batch)
        return [int(left[place]) for place in best]

    def _answers(
        self, tagger: LinearTagger, products: Sequence[Product]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        chances = 0.5 * (1 + np.tanh(0.5 * tagger.log_odds(products).astype(np.float64)))
        return chances, decode_scores(chances, self._vocabulary, tagger.thresholds)


def _expected_f1(chances: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return about what F1 each answer has if chances are right: 2 x expected hits / expected sizes."""
    hits = np.where(chosen, chances, 0).sum(axis=1)
    f1: npt.NDArray[np.float64] = 2 * hits / np.maximum(chosen.sum(axis=1) + chances.sum(axis=1), 1e-9)
    return f1


def _needed(labels: Sequence[int], curve: npt.NDArray[np.float64], goal: float) -> float | None:
    """Return how many labels reach the goal for the first time; None: none do."""
    for place, value in enumerate(curve):
        if value >= goal:
            if place == 0:
                return float(labels[0])
            share = (goal - curve[place - 1]) / (value - curve[place - 1])
            return round(float(labels[place - 1] + share * (labels[place] - labels[place - 1])), 1)
    return None


if __name__ == "__main__":
    sys.exit(main())
