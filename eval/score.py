"""From the predictions in a results folder to results.json: every figure, with intervals and comparisons."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from eval.predict import Batch, content_hash
from eval.store import FORMAT, ArmPredictions, Context, TestProduct, read_context, read_predictions, read_products
from hangtag import metrics
from hangtag.manifest import provenance, write_json
from hangtag.metrics import Figure, Outcomes, Resampled
from hangtag.vocabulary import TagVocabulary

FEWEST_PRODUCTS = 30
NUM_WORST = 20
NUM_CONFUSED = 20
_TEXT_LENGTH = 400

_SET_METRICS = (
    metrics.exact_match,
    metrics.set_f1,
    metrics.micro_f1,
    metrics.micro_precision,
    metrics.micro_recall,
    metrics.macro_f1,
    metrics.macro_precision,
    metrics.macro_recall,
    metrics.jaccard,
    metrics.cardinality_error,
    metrics.cardinality_bias,
    metrics.validity,
)


def score(out: Path) -> dict[str, Any]:
    """Return all figures of a results folder, and write them to its results.json.

    Deterministic: the same predictions and settings give the same figures. Figures that are not defined are None.

    Raises:
        DataError: the folder holds no whole evaluation.
    """
    context = read_context(out)
    recipe = context.recipe
    products = read_products(out)
    plain = {arm: read_predictions(out, arm) for arm in context.arms}
    board = _Scoreboard(context, products, plain)
    arms = {}
    for arm, held in plain.items():
        perturbed = {kind: read_predictions(out, arm, kind) for kind in recipe.perturb}
        arms[arm] = board.arm(arm) | {
            "identity": context.arms[arm],
            **_efficiency(held, context),
            "robustness": {kind: board.robustness(arm, other) for kind, other in perturbed.items()},
        }
    best = max(
        arms, key=lambda arm: (arms[arm]["is_reliable"], arms[arm]["figures"]["set_f1"]["value"]), default=None
    )
    results = {
        "format": FORMAT,
        "note": context.note,
        "command": context.command,
        "dataset": context.dataset | {"num_evaluated": len(products)},
        "vocabulary": {
            "fingerprint": context.vocabulary.fingerprint,
            "num_tags": len(context.vocabulary),
            "facets": {name: limits.model_dump() for name, limits in context.vocabulary.facets.items()},
        },
        "groups": board.group_sizes(),
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": content_hash(recipe.model_dump(mode="json")),
        "baseline": recipe.baseline if recipe.baseline in arms else None,
        "best": best,
        "arms": arms,
        "missing": context.missing,
        "failed": context.failed,
        "worst": board.worst(best, texts=recipe.texts) if best else [],
        "provenance": context.provenance | {"scored": provenance()["date"]},
        "seconds": sum(arm["seconds"] + arm["setup_seconds"] for arm in arms.values()),
    }
    results = cast(dict[str, Any], _without_nan(results))
    write_json(out / "results.json", results)
    return results


def figures(
    outcomes: Outcomes,
    products: Sequence[TestProduct],
    vocabulary: TagVocabulary,
    train_counts: Mapping[str, int],
) -> dict[str, Figure]:
    """Return every figure of set agreement by name, each a function of resampling weights (or None).

    Figures of a part are there only where the part holds a product or a tag: `facet_accuracy:F` and `facet_f1:F`
    for each facet F; `head_f1`, `torso_f1` and `tail_f1`; `PART_exact_match` and `PART_set_f1` for unseen_set,
    seen_set, chinese and english; `hierarchical_f1` where a tag has a parent.
    """
    found = metrics.bind(outcomes, *_SET_METRICS)
    if any(tag.parent for tag in vocabulary):
        found["hierarchical_f1"] = functools.partial(metrics.micro_f1, outcomes.with_ancestors(vocabulary))
    if len(vocabulary.facet_names) > 1:
        for facet in vocabulary.facet_names:
            tags = vocabulary.in_facet(facet)
            found[f"facet_accuracy:{facet}"] = functools.partial(metrics.facet_accuracy, outcomes, tags)
            found[f"facet_f1:{facet}"] = functools.partial(metrics.tags_f1, outcomes, tags)
    counts = {tag: train_counts.get(tag, 0) for tag in vocabulary.names}
    for name, group in metrics.frequency_groups(counts).items():
        if group:
            found[f"{name}_f1"] = functools.partial(metrics.tags_f1, outcomes, group)
    for name, mask in _parts(products).items():
        for metric in (metrics.exact_match, metrics.set_f1):
            found[f"{name}_{metric.__name__}"] = functools.partial(_masked, metric, outcomes, mask)
    return found


def _parts(products: Sequence[TestProduct]) -> dict[str, Any]:
    unseen = np.array([product.is_unseen for product in products], dtype=float)
    chinese = np.array([product.is_chinese for product in products], dtype=float)
    parts = {"unseen_set": unseen, "seen_set": 1 - unseen}
    if 0 < chinese.sum() < len(products):
        parts |= {"chinese": chinese, "english": 1 - chinese}
    return {name: mask for name, mask in parts.items() if mask.any()}


def _masked(metric: Callable[..., Any], outcomes: Outcomes, mask: Any, weights: Any) -> Any:
    return metric(outcomes, mask if weights is None else weights * mask)


class _Scoreboard:
    """The arms of one evaluation beside each other, over the same resamples."""

    def __init__(
        self, context: Context, products: dict[str, TestProduct], plain: dict[str, ArmPredictions]
    ) -> None:
        self._context = context
        self._products = products
        self._plain = plain
        self._outcomes = {arm: held.outcomes(products, context.vocabulary) for arm, held in plain.items()}
        self._resampled: dict[tuple[str, tuple[str, ...]], Resampled] = {}

    def arm(self, arm: str) -> dict[str, Any]:
        """Return the figures of one arm, its confidences, what was invalid, and its distance to the baseline."""
        held = self._plain[arm]
        found = self._figures(arm, tuple(held.ids))
        confidences = held.confidences(self._products)
        return {
            "num_products": len(held.ids),
            "is_reliable": len(held.ids) >= FEWEST_PRODUCTS,
            "figures": {
                name: asdict(found.estimate(name, share_of=self._share_of(name, held.ids)))
                for name in found.values
            },
            "against": self._against(arm),
            "invalid": _invalid(held, self._context.vocabulary),
            "reliability": [asdict(part) for part in metrics.reliability(confidences)],
            "risk_coverage": metrics.risk_coverage(confidences),
            "confused": _confused(self._outcomes[arm], self._context.vocabulary),
        }

    def robustness(self, arm: str, perturbed: ArmPredictions) -> dict[str, Any]:
        """Return set-F1 under a perturbation and its change, paired over the same products."""
        num_products = len(perturbed.ids)
        outcomes = perturbed.outcomes(self._products, self._context.vocabulary)
        found = self._context.resample(metrics.bind(outcomes, metrics.set_f1), num_products)
        return {
            "set_f1": found.values["set_f1"],
            "change": asdict(found.exceeds(self._figures(arm, tuple(self._plain[arm].ids)))["set_f1"]),
            "num_changed": sum(perturbed.changed or []),
            "num_products": num_products,
        }

    def worst(self, best: str, *, texts: bool) -> list[dict[str, Any]]:
        """Return the products that the best arm does worst, with what each arm answered."""
        scores = {
            arm: dict(zip(self._plain[arm].ids, metrics.product_f1(outcomes), strict=True))
            for arm, outcomes in self._outcomes.items()
        }
        taggings = {arm: {t.id: t for t in held.taggings} for arm, held in self._plain.items()}

        def badness(product_id: str) -> tuple[float, float, str]:
            others = [values[product_id] for values in scores.values() if product_id in values]
            return scores[best][product_id], float(np.mean(others)), product_id

        found = []
        for product_id in sorted(scores[best], key=badness)[:NUM_WORST]:
            product = self._products[product_id]
            row: dict[str, Any] = {"id": product_id, "arms": {}}
            if texts:
                row |= {"text": product.text[:_TEXT_LENGTH], "gold": sorted(product.gold)}
            for arm, values in scores.items():
                if product_id not in values:
                    continue
                tagging = taggings[arm][product_id]
                row["arms"][arm] = {"set_f1": float(values[product_id]), "status": tagging.status}
                if texts:
                    row["arms"][arm]["tags"] = list(tagging.names)
            found.append(row)
        return found

    def group_sizes(self) -> dict[str, Any]:
        """Return how many products and tags stand behind the figures of parts."""
        products, vocabulary = list(self._products.values()), self._context.vocabulary
        counts = {tag: self._context.train_counts.get(tag, 0) for tag in vocabulary.names}
        return {
            "products": {name: int(mask.sum()) for name, mask in _parts(products).items()},
            "tags": {name: len(tags) for name, tags in metrics.frequency_groups(counts).items()},
        }

    def _figures(self, arm: str, ids: tuple[str, ...]) -> Resampled:
        """Return each figure over the products `ids`."""
        if (arm, ids) not in self._resampled:
            held = self._plain[arm]
            if ids != tuple(held.ids):
                held = held.only(ids)
            context = self._context
            functions = figures(
                held.outcomes(self._products, context.vocabulary),
                [self._products[name] for name in ids],
                context.vocabulary,
                context.train_counts,
            )
            confidences = held.confidences(self._products)
            if len(confidences):
                functions["calibration_error"] = functools.partial(metrics.calibration_error, confidences)
                for percent in (95, 99):
                    functions[f"coverage_at_{percent}"] = functools.partial(
                        metrics.coverage_at, confidences, percent / 100
                    )
            self._resampled[arm, ids] = context.resample(functions, len(ids))
        return self._resampled[arm, ids]

    def _share_of(self, name: str, ids: Sequence[str]) -> int | None:
        """Return the number of products that a figure is a share of; None if it is no share."""
        if name in ("exact_match", "validity") or name.startswith("facet_accuracy:"):
            return len(ids)
        parts = _parts([self._products[product_id] for product_id in ids])
        return next((int(mask.sum()) for part, mask in parts.items() if name == f"{part}_exact_match"), None)

    def _against(self, arm: str) -> dict[str, Any] | None:
        """Return the differences to the baseline over the products of both; None for the baseline itself."""
        baseline = self._context.recipe.baseline
        if baseline == arm or baseline not in self._plain:
            return None
        shared = set(self._plain[arm].ids) & set(self._plain[baseline].ids)
        ids = tuple(name for name in self._products if name in shared)
        if not ids:
            return None
        found = self._figures(arm, ids).exceeds(self._figures(baseline, ids))
        return {
            "baseline": baseline,
            "num_products": len(ids),
            "figures": {name: asdict(difference) for name, difference in found.items()},
        }


def _invalid(held: ArmPredictions, vocabulary: TagVocabulary) -> dict[str, int]:
    """Return how many answers were unparsed or failed, and how many tags were left out of answers, by kind."""
    counts = Counter(
        {"unparsed": 0, "failed": 0, "unknown": 0, "repeated": 0, "over_limit": 0, "answers_with_violations": 0}
    )
    for tagging in held.taggings:
        if tagging.status != "ok":
            counts["failed" if tagging.status == "error" else "unparsed"] += 1
            continue
        known = [tag for tag in tagging.names if tag in vocabulary]
        found = Counter(tagging.violations)
        found["unknown"] += len(tagging.names) - len(known)
        found["repeated"] += len(known) - len(set(known))
        counts.update(found)
        counts["answers_with_violations"] += found.total() > 0
    return dict(counts)


def _confused(outcomes: Outcomes, vocabulary: TagVocabulary) -> list[dict[str, Any]]:
    """Return the pairs of tags of one facet that are taken for each other most: gold, predicted, products.

    A pair is counted for a product where the one is gold and missed, the other predicted and wrong.
    """
    missed, wrong = outcomes.gold & ~outcomes.predicted, outcomes.predicted & ~outcomes.gold
    facets = [vocabulary[tag].facet if tag in vocabulary else None for tag in outcomes.tags]
    pairs: Counter[tuple[str, str]] = Counter()
    for lost, extra in zip(missed, wrong, strict=True):
        extras = np.flatnonzero(extra)
        for gold in np.flatnonzero(lost):
            pairs.update(
                (outcomes.tags[gold], outcomes.tags[tag]) for tag in extras if facets[tag] == facets[gold]
            )
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:NUM_CONFUSED]
    return [
        {"facet": vocabulary[predicted].facet, "gold": gold, "predicted": predicted, "num_products": number}
        for (gold, predicted), number in ordered
    ]


def _efficiency(held: ArmPredictions, context: Context) -> dict[str, Any]:
    """Return time, products a second, tokens a product and cost, with intervals by bootstrap over batches.

    Loading and fitting are in `setup_seconds` alone. A single batch gives no interval.
    """
    batches = held.batches
    size = np.array([batch.num_products for batch in batches], dtype=float)
    seconds = np.array([batch.seconds for batch in batches], dtype=float)
    functions: dict[str, Figure] = {"products_per_s": functools.partial(_ratio, size, seconds)}
    for name in ("prompt_tokens", "output_tokens"):
        if all(getattr(batch, name) is not None for batch in batches):
            functions[name] = functools.partial(_ratio, _tokens(batches, name), size)
    if context.recipe.rate:
        functions["cost_per_1000"] = functools.partial(_ratio, context.recipe.rate / 3.6 * seconds, size)
    if len(batches) > 1:
        found = context.resample(functions, len(batches))
    else:
        values = {name: float(function(None)) for name, function in functions.items()}
        found = Resampled(values, dict.fromkeys(functions, np.array([math.nan])))
    return {
        "seconds": float(seconds.sum()),
        "setup_seconds": held.setup_seconds,
        "efficiency": {name: asdict(found.estimate(name)) for name in functions},
    }


def _tokens(batches: Sequence[Batch], name: str) -> Any:
    return np.array([getattr(batch, name) for batch in batches], dtype=float)


def _ratio(above: Any, below: Any, weights: Any) -> Any:
    """Return the ratio of two totals; a total of no time counts as a nanosecond."""
    if weights is None:
        weights = np.ones(len(above))
    return weights @ above / np.maximum(weights @ below, 1e-9)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
