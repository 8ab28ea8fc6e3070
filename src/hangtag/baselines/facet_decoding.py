"""From a score a tag to a set of tags that obeys the facets' limits, and the thresholds for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hangtag.product import Product
from hangtag.tagging import ScoredTag, Tagging
from hangtag.vocabulary import TagVocabulary

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating]

DEFAULT_THRESHOLD = 0.5
_CANDIDATES = np.round(np.arange(0.02, 0.981, 0.02), 2)
_MAX_ROUNDS = 6


def facet_columns(vocabulary: TagVocabulary) -> dict[str, npt.NDArray[np.intp]]:
    """Return the positions of each facet's tags in the vocabulary, facets and tags in its order."""
    columns: dict[str, list[int]] = {facet: [] for facet in vocabulary.facet_names}
    for position, tag in enumerate(vocabulary.tags):
        columns[tag.facet].append(position)
    return {facet: np.array(positions, dtype=np.intp) for facet, positions in columns.items()}


def tag_matrix(tag_sets: Iterable[Iterable[str]], vocabulary: TagVocabulary) -> BoolArray:
    """Return which product holds which tag, shape (products, tags); tags that are unknown are left out."""
    rows = [[vocabulary.position(name) for name in names if name in vocabulary] for names in tag_sets]
    matrix = np.zeros((len(rows), len(vocabulary)), dtype=np.bool_)
    for row, positions in enumerate(rows):
        matrix[row, positions] = True
    return matrix


def sigmoid(log_odds: FloatArray) -> npt.NDArray[np.float64]:
    """Return the probabilities of log-odds; none is too large for it."""
    probabilities: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * log_odds.astype(np.float64)))
    return probabilities


def decode_scores(
    scores: FloatArray, vocabulary: TagVocabulary, thresholds: Mapping[str, float] | None = None
) -> BoolArray:
    """Return which tags are chosen, shape (products, tags) like `scores`.

    In each facet a tag is chosen if its score reaches the facet's threshold (`DEFAULT_THRESHOLD` where none
    is given) and it is among the best `max`; the best `min` are chosen whatever their scores. So a facet
    that holds exactly one tag is decoded by arg-max, and an optional exclusive one by arg-max or nothing.
    Equal scores: the earlier tag of the vocabulary wins.

    Raises:
        ValueError: `scores` has not one column a tag.
    """
    if scores.ndim != 2 or scores.shape[1] != len(vocabulary):
        raise ValueError(f"scores of shape {scores.shape}; expected (products, {len(vocabulary)})")
    chosen = np.zeros(scores.shape, dtype=np.bool_)
    for facet, columns in facet_columns(vocabulary).items():
        threshold = (thresholds or {}).get(facet, DEFAULT_THRESHOLD)
        chosen[:, columns] = _FacetScores(scores[:, columns], vocabulary, facet).choose(threshold)
    return chosen


def tune_thresholds(scores: FloatArray, gold: BoolArray, vocabulary: TagVocabulary) -> dict[str, float]:
    """Return the threshold of each facet that together give the best set-F1 of `decode_scores`.

    Coordinate ascent from `DEFAULT_THRESHOLD`, one facet after the other, until nothing improves; the
    candidates are 0.02 to 0.98. `scores` and `gold` have shape (products, tags) and should come from
    products that were not trained on. Facets in which the threshold plays no part keep the default.
    Deterministic.
    """
    num_gold = gold.sum(axis=1)
    hits: dict[str, npt.NDArray[np.int64]] = {}
    sizes: dict[str, npt.NDArray[np.int64]] = {}
    candidates = np.unique(np.append(_CANDIDATES, DEFAULT_THRESHOLD))
    for facet, columns in facet_columns(vocabulary).items():
        facet_scores = _FacetScores(scores[:, columns], vocabulary, facet)
        chosen = [facet_scores.choose(threshold) for threshold in candidates]
        hits[facet] = np.stack([(mask & gold[:, columns]).sum(axis=1) for mask in chosen])
        sizes[facet] = np.stack([mask.sum(axis=1) for mask in chosen])
    best = dict.fromkeys(hits, int(np.flatnonzero(candidates == DEFAULT_THRESHOLD)[0]))
    total_hits = sum(hits[facet][at] for facet, at in best.items())
    total_sizes = sum(sizes[facet][at] for facet, at in best.items())
    for _ in range(_MAX_ROUNDS):
        moved = False
        for facet, at in best.items():
            other_hits = total_hits - hits[facet][at]
            other_sizes = total_sizes - sizes[facet][at]
            values = _set_f1(hits[facet] + other_hits, sizes[facet] + other_sizes, num_gold)
            # A gain below rounding error must not move a threshold off its place.
            if values.size and values.max() > values[at] + 1e-12:
                best[facet] = int(values.argmax())
                total_hits = other_hits + hits[facet][best[facet]]
                total_sizes = other_sizes + sizes[facet][best[facet]]
                moved = True
        if not moved:
            break
    return {facet: float(candidates[at]) for facet, at in best.items()}


def set_f1_of(chosen: BoolArray, gold: BoolArray) -> float:
    """Return set-F1 of two (products, tags) matrices: the mean of each product's own F1; both empty counts 1."""
    return float(_set_f1((chosen & gold).sum(axis=1), chosen.sum(axis=1), gold.sum(axis=1)))


def exact_match_of(chosen: BoolArray, gold: BoolArray) -> float:
    """Return the share of products whose chosen set is the gold set."""
    return float((chosen == gold).all(axis=1).mean())


def to_taggings(
    products: Sequence[Product],
    scores: FloatArray,
    vocabulary: TagVocabulary,
    thresholds: Mapping[str, float] | None,
    *,
    model: str,
) -> list[Tagging]:
    """Return one tagging a product; tags in the vocabulary's order, confidence = the score.

    `scores` has shape (products, tags), values in [0, 1].
    """
    chosen = decode_scores(scores, vocabulary, thresholds)
    clipped = np.clip(scores, 0.0, 1.0)
    return [
        Tagging(
            id=product.id,
            tags=tuple(
                ScoredTag.of(vocabulary.tags[position], float(clipped[row, position]))
                for position in np.flatnonzero(chosen[row])
            ),
            model=model,
            vocabulary=vocabulary.fingerprint,
        )
        for row, product in enumerate(products)
    ]


class _FacetScores:
    """The scores of one facet with the rank of each tag in its row, so that many thresholds cost one sort."""

    def __init__(self, scores: FloatArray, vocabulary: TagVocabulary, facet: str) -> None:
        self._scores = scores
        limits = vocabulary.facets[facet]
        order = np.argsort(-scores, axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
        self._forced = ranks < limits.min
        self._allowed = ranks < (scores.shape[1] if limits.max is None else limits.max)

    def choose(self, threshold: float) -> BoolArray:
        chosen: BoolArray = ((self._scores >= threshold) & self._allowed) | self._forced
        return chosen


def _set_f1(
    hits: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], num_gold: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the mean over the last axis (products) of each product's F1."""
    total = sizes + num_gold
    f1 = np.where(total > 0, 2.0 * hits / np.maximum(total, 1), 1.0)
    mean: npt.NDArray[np.float64] = f1.mean(axis=-1)
    return mean
