"""Fit what evidence is worth beside a fine-tuned model, so that both together decide.

    python -m sft.fuse --run RUN --data DIR

Sources of evidence (words, meaning, a linear model, the nearest labelled products) are fitted on the products that
the run was trained on. On validation products, which neither has learned from, the model reads every gold answer
tag by tag; weights are chosen that make the gold step likeliest among all steps that the constraint allows, given
the model's log-probabilities and the sources' scores: multinomial logistic regression, convex, by L-BFGS, with
departures by facet. Half of the products are fitted on and the other half measured, then all are fitted on.
Answers of the two together are tagged once more to calibrate their confidences. Writes RUN/evidence; the last line
of stdout is one JSON document with what was measured. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag import program
from hangtag.catalogue.labelled import Dataset
from hangtag.durable import replaced
from hangtag.errors import DataError, RecipeError
from hangtag.evidence.fitted import fit_sources, save_evidence
from hangtag.evidence.fusion import Fusion
from hangtag.language_model.run import FineTunedRun, read_run
from hangtag.manifest import RunFiles, write_json
from hangtag.product import Product

_BATCH = 16
# Of the L2 penalty on a weight over columns of unit variance; departures by facet are dearer.
_RIDGE, _FACET_RIDGE = 1.0, 10.0
_BY_FACET = ("linear.log_odds", "nearest.vote")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """Every step of the gold answers: one row a step, one column a tag and, last, one for the end.

    `model` holds the model's logits, -inf where the constraint allows nothing; `gold` the column that was right,
    `product` whose answer it is.
    """

    model: Floats
    gold: npt.NDArray[np.intp]
    product: npt.NDArray[np.intp]

    def of(self, products: npt.NDArray[np.bool_]) -> Steps:
        """Return the steps of the products that are chosen."""
        kept = products[self.product]
        return Steps(self.model[kept], self.gold[kept], self.product[kept])


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the run's evidence and return the exit code."""
    parser = program.parser("python -m sft.fuse", __doc__)
    parser.add_argument(
        "--run", required=True, type=Path, metavar="DIR", help="a run that sft.export has exported"
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the dataset it was trained on")
    parser.add_argument(
        "--products", type=int, default=1000, metavar="N", help="validation products (default: %(default)s)"
    )
    options = parser.parse_args(argv)

    def work() -> int:
        if options.products < 50:
            raise RecipeError(f"--products {options.products}: expected at least 50")
        print(json.dumps(fuse(options.run, options.data, options.products)))
        return 0

    return program.run("sft.fuse", work)


def fuse(folder: Path, data: Path, num_products: int) -> dict[str, Any]:
    """Write the run's evidence and return what was measured."""
    from hangtag.config import load_recipe
    from sft.labelled import draw, load_labelled_splits
    from sft.recipe import TRAINER_DEFAULTS, TrainRecipe

    run = read_run(folder)
    if run.answers.answer != "tag_tokens":
        raise RecipeError(
            f"{folder}: answers in ordinary tokens cannot be fused yet; train with answer: tag_tokens"
        )
    run.exported("model")
    dataset = load_labelled_splits(data)
    if dataset.vocabulary.fingerprint != run.vocabulary.fingerprint:
        raise DataError(f"{data}: another vocabulary than that of {folder}; give the dataset it was trained on")
    recipe = load_recipe(RunFiles(folder).recipe, TrainRecipe)
    seed = (TRAINER_DEFAULTS | recipe.trainer)["seed"]
    train = draw(dataset.train, recipe.limit, seed)
    products = draw(dataset.validation, num_products, seed)
    print(f"fitting sources on {len(train)} products", file=sys.stderr, flush=True)
    sources = fit_sources(run.vocabulary, train, dataset.validation)
    columns = [f"{name}.{column}" for name, source in sources.items() for column in source.columns]
    scores = np.concatenate([source.scores(products) for source in sources.values()], axis=2)
    from hangtag.engines.transformers_local import TransformersEngine

    engine = TransformersEngine(str(folder / "model"), dtype="float32")
    steps = read_steps(run, engine, recipe, train, products)
    fitting = Fitting(run, columns, scores)
    first = np.arange(len(products)) % 2 == 0
    halves = [fitting.fit(steps.of(first)), fitting.fit(steps.of(~first))]
    held_out = [fitting.measure(steps.of(~first), halves[0]), fitting.measure(steps.of(first), halves[1])]
    model_alone = fitting.measure(steps, fitting.nothing)
    fusion = fitting.fusion(fitting.fit(steps), {dataset.folder.name: len(products)})
    measured: dict[str, Any] = {
        "products": len(products),
        "steps": len(steps.gold),
        "model": model_alone,
        "fused_held_out": {name: round(float(np.mean([h[name] for h in held_out])), 4) for name in model_alone},
    }
    with replaced(RunFiles(folder).evidence) as place:
        place.mkdir()
        save_evidence(place, sources, fusion)
    measured |= _calibrate(run, engine, dataset, products)
    write_json(RunFiles(folder).evidence / "metrics.json", measured)
    return measured


def read_steps(
    run: FineTunedRun, engine: Any, recipe: Any, train: Sequence[Product], products: Sequence[Product]
) -> Steps:
    """Return the model's logits at every step of the products' gold answers, in the order of the training."""
    import torch

    from sft.labelled import tag_counts
    from sft.pairs import PairMaker, TagOrder
    from sft.recipe import Augmentation

    maker = PairMaker(
        engine.tokenizer,
        run.vocabulary,
        run.answers,
        template=run.files.prompt,
        order=TagOrder(recipe.order, run.vocabulary, tag_counts(train)),
        augmentation=Augmentation(),
        seed=0,
    )
    constraint, num_tags = maker.constraint, len(run.vocabulary)
    column_of = {constraint.tag_token(n, later=later): n for n in range(num_tags) for later in (False, True)}
    column_of[constraint.close[0]] = num_tags
    rows, gold, owner = [], [], []
    pairs = maker.pairs(products)
    with program.progress("reading gold answers", "product", total=len(pairs)) as bar, torch.inference_mode():
        for start in range(0, len(pairs), _BATCH):
            batch = pairs[start : start + _BATCH]
            logits = engine.logits([[*pair.prompt, *pair.answer] for pair in batch])
            for number, (pair, row) in enumerate(zip(batch, logits, strict=True), start=start):
                state = constraint.start(max_tokens=run.answers.max_tokens, limits=run.answers.limits)
                for at, token in enumerate(pair.answer):
                    allowed = constraint.allowed(state)
                    if len(allowed) > 1:
                        step = np.full(num_tags + 1, -np.inf)
                        step[[column_of[one] for one in allowed.tolist()]] = row[
                            len(pair.prompt) + at - 1, allowed
                        ]
                        rows.append(step)
                        gold.append(column_of[token])
                        owner.append(number)
                    constraint.advance(state, token)
            bar.update(len(batch))
    return Steps(np.array(rows), np.array(gold, np.intp), np.array(owner, np.intp))


class Fitting:
    """The regression: weights over the model's log-probability, the sources' scores, and the end."""

    def __init__(self, run: FineTunedRun, columns: Sequence[str], scores: npt.NDArray[np.float32]) -> None:
        """Keep the scores, shape (products, tags, columns)."""
        self._columns = list(columns)
        facets = run.vocabulary.facet_names
        of_facet = {
            facet: np.array([tag.facet == facet for tag in run.vocabulary], np.float32) for facet in facets
        }
        self._own = [(facet, name) for facet in facets for name in _BY_FACET if len(facets) > 1]
        own = [scores[:, :, self._columns.index(name)] * of_facet[facet] for facet, name in self._own]
        every = np.concatenate([scores, *(column[:, :, None] for column in own)], axis=2)
        self._scale = np.maximum(every.std(axis=(0, 1)), 1e-6)
        self._scores = (every / self._scale).astype(np.float32)
        self._ridge = np.r_[0.0, 0.0, np.full(len(self._columns), _RIDGE), np.full(len(self._own), _FACET_RIDGE)]
        self.nothing: Floats = np.r_[1.0, 0.0, np.zeros(every.shape[2])]

    def fit(self, steps: Steps) -> Floats:
        """Return the weights: of the model, of the end, and of each score."""
        from scipy.optimize import minimize

        found = minimize(
            self._loss, self.nothing, args=(steps,), jac=True, method="L-BFGS-B", options={"maxiter": 200}
        )
        weights: Floats = found.x
        return weights

    def measure(self, steps: Steps, weights: Floats) -> dict[str, float]:
        """Return the mean log-likelihood of a gold step, and the share of steps where it is the likeliest."""
        shares = self._log_shares(steps, weights)
        at_gold = shares[np.arange(len(steps.gold)), steps.gold]
        right = shares.argmax(axis=1) == steps.gold
        return {"log_likelihood": round(float(at_gold.mean()), 4), "steps_right": round(float(right.mean()), 4)}

    def fusion(self, weights: Floats, fitted_on: dict[str, int]) -> Fusion:
        """Return the weights as the decoder takes them, beside a model of weight one."""
        model, end = weights[:2]
        shared, own = np.split(weights[2:] / self._scale / model, [len(self._columns)])
        by_facet: dict[str, dict[str, float]] = {}
        for (facet, name), value in zip(self._own, own, strict=True):
            total = shared[self._columns.index(name)] + value
            by_facet.setdefault(facet, {})[name] = round(float(total), 5)
        return Fusion(
            weights={name: round(float(v), 5) for name, v in zip(self._columns, shared, strict=True)},
            by_facet=by_facet,
            threshold=float(np.clip(1 / (1 + np.exp(-end / model)), 1e-6, 1 - 1e-6)),
            fitted_on=fitted_on,
        )

    def _inputs(self, steps: Steps, rows: slice) -> npt.NDArray[np.float32]:
        scores = self._scores[steps.product[rows]]
        return np.concatenate((scores, np.zeros_like(scores[:, :1])), axis=1)

    def _log_shares(self, steps: Steps, weights: Floats) -> Floats:
        shares = steps.model * max(weights[0], 1e-3)
        for start in range(0, len(shares), 512):
            rows = slice(start, start + 512)
            shares[rows] += self._inputs(steps, rows) @ weights[2:]
        shares[:, -1] += weights[1]
        log_shares: Floats = shares - np.logaddexp.reduce(shares, axis=1, keepdims=True)
        return log_shares

    def _loss(self, weights: Floats, steps: Steps) -> tuple[float, Floats]:
        shares = self._log_shares(steps, weights)
        at_gold = np.arange(len(steps.gold)), steps.gold
        error = np.exp(shares)
        loss = -float(shares[at_gold].sum()) + 0.5 * float((self._ridge * weights**2).sum())
        error[at_gold] -= 1
        logits = np.where(np.isfinite(steps.model), steps.model, 0.0)
        gradient = np.r_[(error * logits).sum(), error[:, -1].sum(), np.zeros(len(weights) - 2)]
        for start in range(0, len(error), 512):
            rows = slice(start, start + 512)
            gradient[2:] += np.einsum("st,stc->c", error[rows], self._inputs(steps, rows))
        return loss, gradient + self._ridge * weights


def _calibrate(run: FineTunedRun, engine: Any, dataset: Dataset, products: Sequence[Product]) -> dict[str, Any]:
    """Tag the products with both together, write the calibration, and return what they score."""
    from hangtag.language_model.run import fused_calibration
    from hangtag.loading import run_tagger
    from sft.validation import calibrate, score

    tagger = run_tagger(run, engine, fused=True)
    bar = program.progress("tagging", "product", iterable=tagger.stream(products), total=len(products))
    taggings = list(bar)
    calibration, errors = calibrate(taggings, products)
    if calibration is not None:
        calibration.save(fused_calibration(run.files))
    return {"fused": score(taggings, products, dataset.vocabulary), "calibration": errors}


if __name__ == "__main__":
    sys.exit(main())
