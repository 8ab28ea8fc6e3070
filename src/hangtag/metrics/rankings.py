"""Metrics of ranked lists, one value a user: what of the gold items stands how high."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hangtag.metrics.bootstrap import Figure
from hangtag.metrics.outcomes import FloatArray


def hits_of(ranked: NDArray[np.int64], gold: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which places of `ranked` (num_users, depth) hold gold, given `gold` (num_users, num_items)."""
    found: NDArray[np.bool_] = np.take_along_axis(gold, ranked, 1)
    return found


def ranking_metrics(
    hits: NDArray[np.bool_], num_gold: NDArray[np.int64], *, recall_at: Sequence[int] = (12, 100)
) -> dict[str, FloatArray]:
    """Return metrics by name, one value a user, shapes (num_users,), in [0, 1]; NaN where a user has no gold.

    `recall@k` is hits among the first k / gold items, for each k of `recall_at`. With k the first of them:
    `precision@k` hits / k; `hit@k` 1 if one of the first k is gold; `map@k` the mean over the gold items, at most
    k of them, of the precision at their places, 0 for those below k. `ndcg@10` is the discounted gain
    1 / log2(1 + place) of hits over that of the best order; `mrr` 1 / place of the first hit, 0 without one.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002); map@k as in the
    2022 H&M competition.
    """
    depth = recall_at[0]
    hit = hits.astype(np.float64)
    gold = np.where(num_gold > 0, num_gold, np.nan)
    place = np.arange(1, hits.shape[1] + 1)
    found = {f"recall@{k}": hit[:, :k].sum(1) / gold for k in recall_at}
    first = hit[:, :depth]
    found[f"precision@{depth}"] = first.sum(1) / depth + 0 * gold
    found[f"hit@{depth}"] = first.any(1) + 0 * gold
    precision = first.cumsum(1) / place[: first.shape[1]]
    found[f"map@{depth}"] = (first * precision).sum(1) / np.minimum(gold, depth)
    gain = 1 / np.log2(1 + place[:10])
    best = np.concatenate([[0.0], gain.cumsum()])
    ideal = best[np.minimum(num_gold, len(gain))]
    found["ndcg@10"] = np.where(num_gold > 0, hit[:, :10] @ gain / np.where(ideal > 0, ideal, 1), np.nan)
    found["mrr"] = np.where(hits.any(1), 1 / (1 + hits.argmax(1)), 0) + 0 * gold
    return found


def mean_over(values: FloatArray) -> Figure:
    """Return the mean of a value a user as a figure for `hangtag.metrics.resample`."""

    def figure(weights: FloatArray | None) -> FloatArray:
        mean: FloatArray = values.mean() if weights is None else weights @ values / weights.sum(1)
        return mean

    return figure


def coverage(ranked: NDArray[np.int64], num_items: int) -> float:
    """Return the share of all items that stand in at least one list of `ranked` (num_users, depth)."""
    return len(np.unique(ranked)) / num_items


def novelty(ranked: NDArray[np.int64], share_of_users: FloatArray) -> float:
    """Return the mean of −log2(share of users who took the item) over all places, in bits; higher is rarer.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems" (2010).
    """
    return float(-np.log2(share_of_users[ranked]).mean())
