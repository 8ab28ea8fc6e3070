"""Metrics of tag sets: how well predicted sets of tags agree with gold sets.

Every function takes `Outcomes` and, for resampling, `weights`: how often each product counts, shape
(products,) or (resamples, products). Without weights the result has shape () and `float()` reads it; with
(resamples, products) it has shape (resamples,). All lie in [0, 1] and higher is better, unless said otherwise.
An unparsed answer predicts nothing and is never an exact match; a tag left out of an answer (unknown, repeated,
over a facet's limit) is one more wrong predicted tag. Where no product has any weight the result is NaN.

    Examples:
        >>> from hangtag.metrics import Outcomes, set_f1
        >>> gold = [frozenset({"red", "shoes"}), frozenset({"blue"})]
        >>> float(set_f1(Outcomes.from_sets(gold, [frozenset({"red"}), None])))
        0.3333333333333333
"""

from __future__ import annotations

import numpy as np

from hangtag.metrics.outcomes import FloatArray, Outcomes, ratio


def exact_match(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the share of products whose predicted set is the gold set.

    Empty gold and an empty answer match. An unparsed answer and one with a left-out tag never do.
    Source: scikit-learn `accuracy_score` on indicator matrices.
    """
    return outcomes.mean(is_exact(outcomes).astype(np.float64), weights)


def set_f1(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean over products of each product's own F1, 2 * hits / (gold + predicted).

    A product with empty gold and an empty answer has 1, an unparsed one 0.
    Source: scikit-learn `f1_score(average="samples", zero_division=1)`.
    """
    return outcomes.mean(product_f1(outcomes), weights)


def jaccard(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean over products of hits / tags that are gold or predicted.

    A product with empty gold and an empty answer has 1, an unparsed one 0.
    Source: scikit-learn `jaccard_score(average="samples", zero_division=1)`.
    """
    union = outcomes.num_gold + outcomes.num_predicted - outcomes.num_hits
    values = ratio(outcomes.num_hits, union, empty=1.0)
    return outcomes.mean(np.where(outcomes.is_answered, values, 0.0), weights)


def micro_precision(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return hits / predicted tags, both summed over all products.

    Nothing predicted anywhere: 0 if there is gold, else 1.
    Source: scikit-learn `precision_score(average="micro")`, the empty case excepted.
    """
    hits, predicted, gold = _totals(outcomes, weights)
    return _where_any(ratio(hits, predicted, empty=np.where(gold > 0, 0.0, 1.0)), outcomes, weights)


def micro_recall(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return hits / gold tags, both summed over all products.

    No gold anywhere: 0 if something is predicted, else 1.
    Source: scikit-learn `recall_score(average="micro")`, the empty case excepted.
    """
    hits, predicted, gold = _totals(outcomes, weights)
    return _where_any(ratio(hits, gold, empty=np.where(predicted > 0, 0.0, 1.0)), outcomes, weights)


def micro_f1(outcomes: Outcomes, weights: FloatArray | None = None, *, empty: float = 1.0) -> FloatArray:
    """Return 2 * hits / (gold + predicted), each summed over all products before dividing.

    `empty` is the result where there is neither a gold nor a predicted tag anywhere.
    Source: scikit-learn `f1_score(average="micro")`, the empty case excepted.
    """
    hits, predicted, gold = _totals(outcomes, weights)
    return _where_any(ratio(2 * hits, gold + predicted, empty=empty), outcomes, weights)


def macro_precision(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean over tags of each tag's hits / times predicted, 0 for a tag that is never predicted.

    Averaged over the tags that are gold for at least one (resampled) product. Left-out tags do not enter: they
    are no tags of the vocabulary, or stand in the answer already.
    Source: scikit-learn `precision_score(average="macro", zero_division=0)` on those columns.
    """
    hits, predicted, gold = _tag_totals(outcomes, weights)
    return _macro(ratio(hits, predicted, empty=0.0), gold)


def macro_recall(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean over tags of each tag's hits / times gold, over the tags that are gold at least once.

    Source: scikit-learn `recall_score(average="macro")` on those columns.
    """
    hits, _, gold = _tag_totals(outcomes, weights)
    return _macro(ratio(hits, gold, empty=0.0), gold)


def macro_f1(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean over tags of each tag's F1, over the tags that are gold for at least one product.

    Every such tag counts alike, a frequent one no more than a rare one. A tag that is only predicted, never
    gold, does not enter; micro precision counts it. No gold tag at all: NaN.
    Source: scikit-learn `f1_score(average="macro", zero_division=0)` on those columns.
    """
    hits, predicted, gold = _tag_totals(outcomes, weights)
    return _macro(ratio(2 * hits, gold + predicted, empty=0.0), gold)


def cardinality_error(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean absolute difference between the number of predicted and of gold tags; lower is better.

    In tags a product, not bounded by 1. An unparsed answer has 0 tags. Left-out tags count as predicted.
    """
    return outcomes.mean(np.abs(outcomes.num_predicted - outcomes.num_gold), weights)


def cardinality_bias(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the mean of predicted minus gold tags a product: above 0 too many tags, below 0 too few."""
    return outcomes.mean(outcomes.num_predicted - outcomes.num_gold, weights)


def validity(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Return the share of products whose answer could be read and had no tag left out."""
    return outcomes.mean((outcomes.is_answered & (outcomes.left_out == 0)).astype(np.float64), weights)


def product_f1(outcomes: Outcomes) -> FloatArray:
    """Return each product's own F1, shape (products,); see `set_f1`."""
    values = ratio(2 * outcomes.num_hits, outcomes.num_gold + outcomes.num_predicted, empty=1.0)
    return np.where(outcomes.is_answered, values, 0.0)


def is_exact(outcomes: Outcomes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return for each product whether the predicted set is the gold set; see `exact_match`."""
    same = (outcomes.gold == outcomes.predicted).all(axis=1)
    return np.asarray(same & outcomes.is_answered & (outcomes.left_out == 0))


def _totals(outcomes: Outcomes, weights: FloatArray | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    columns = np.stack([outcomes.num_hits, outcomes.num_predicted, outcomes.num_gold], axis=1)
    totals = outcomes.sum(columns, weights)
    return totals[..., 0], totals[..., 1], totals[..., 2]


def _tag_totals(outcomes: Outcomes, weights: FloatArray | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    hits, predicted, gold = np.split(outcomes.sum(outcomes.tag_statistics, weights), 3, axis=-1)
    return hits, predicted, gold


def _macro(values: FloatArray, gold: FloatArray) -> FloatArray:
    has_gold = gold > 0
    return ratio(np.where(has_gold, values, 0.0).sum(axis=-1), has_gold.sum(axis=-1), empty=np.nan)


def _where_any(values: FloatArray, outcomes: Outcomes, weights: FloatArray | None) -> FloatArray:
    return np.where(outcomes.num_counted(weights) > 0, values, np.nan)
