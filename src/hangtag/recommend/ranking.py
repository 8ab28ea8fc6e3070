"""Weights of features that put what users took next above the rest: a linear model with a listwise loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

PENALTY = 1e-3
_MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Candidates:
    """What users could take, and what they took; arrays over pairs of user and candidate.

    `x` (num_pairs, num_features) holds features, `user` (num_pairs,) whose candidate it is, ascending, `target`
    (num_pairs,) sums to 1 over each user. A pair that was sampled with probability q stands for 1/q pairs:
    `offset` is log(1/q).
    """

    names: tuple[str, ...]
    x: NDArray[np.float32] = field(repr=False)
    user: NDArray[np.int64] = field(repr=False)
    target: NDArray[np.float64] = field(repr=False)
    offset: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True)
class Ranking:
    """A learned weight for each feature; a score is the weighted sum."""

    weights: Mapping[str, float]

    @classmethod
    def fit(cls, candidates: Candidates, *, penalty: float = PENALTY) -> Ranking:
        """Return the weights with the least mean over users of the cross-entropy between target and softmax.

        Features are scaled to unit spread; half of `penalty` times their squared weights is added. The loss is
        convex, and L-BFGS finds its minimum; the same candidates give the same weights.

        Source: Cao et al., "Learning to rank: from pairwise approach to listwise approach" (2007), with the
        probability mass on what was taken; sampled candidates as in Bengio and Senécal, "Quick training of
        probabilistic neural nets by importance sampling" (2003).
        """
        x, user = candidates.x, candidates.user
        spread = x.std(0, dtype=np.float64)
        scale = np.where(spread > 1e-9, spread, 1.0)
        scaled = (x / scale).astype(np.float32)
        is_first = np.concatenate([[True], user[1:] != user[:-1]])
        starts, group = np.flatnonzero(is_first), np.cumsum(is_first) - 1

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            score = (scaled @ weights.astype(np.float32)).astype(np.float64) + candidates.offset
            score -= np.maximum.reduceat(score, starts)[group]
            mass = np.exp(score)
            total = np.add.reduceat(mass, starts)
            value = (np.log(total).sum() - candidates.target @ score) / len(starts)
            slope = (mass / total[group] - candidates.target).astype(np.float32) @ scaled
            return (
                float(value + penalty / 2 * weights @ weights),
                slope.astype(np.float64) / len(starts) + penalty * weights,
            )

        found = scipy.optimize.minimize(
            loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ITERATIONS}
        )
        return cls(dict(zip(candidates.names, (found.x / scale).tolist(), strict=True)))

    def scores(self, features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the weighted sum of features, in their shape."""
        found = np.zeros_like(next(iter(features.values())))
        for name, weight in self.weights.items():
            found += np.float32(weight) * features[name]
        return found


def top(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return positions of the `count` largest scores of each row, largest first; at ties the first position."""
    count = min(count, scores.shape[1])
    # A stable sort of all would cost ten times as much; ties at the border are settled by position too.
    kept = np.sort(np.argpartition(-scores, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(scores, kept, 1), axis=1, kind="stable")
    found: NDArray[np.int64] = np.take_along_axis(kept, order, 1)
    return found
