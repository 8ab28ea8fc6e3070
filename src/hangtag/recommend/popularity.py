"""How popular an item is at a moment: takings, halved in weight with time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hangtag.recommend.interactions import Interactions

_MAX_MOMENTS = 64


@dataclass(frozen=True)
class Popularity:
    """Decayed counts of takings (user, item, moment) at some moments, shape (num_moments, num_items)."""

    moments: NDArray[np.float64]
    counts: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(
        cls, interactions: Interactions, num_items: int, *, half_life: float, now: NDArray[np.float64]
    ) -> Popularity:
        """Return the popularity at each moment of `now`, or at 64 quantiles of them where there are more.

        A taking `half_life` days before a moment counts half, one after it nothing; with an infinite half-life
        all takings count alike, later ones too.
        """
        moments = np.unique(now)
        if len(moments) > _MAX_MOMENTS:
            moments = np.unique(np.quantile(moments, np.linspace(0, 1, _MAX_MOMENTS)))
        if np.isinf(half_life):
            moments = moments[:1]
        counts = np.empty((len(moments), num_items), np.float32)
        for row, moment in enumerate(moments):
            age = moment - interactions.day
            weight = np.ones(len(age)) if np.isinf(half_life) else np.where(age < 0, 0.0, 0.5 ** (age / half_life))
            counts[row] = np.bincount(interactions.item, weights=weight, minlength=num_items)
        return cls(moments, counts)

    def rows(self, now: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which row of `counts` stands for each moment: the latest that is not after it."""
        found: NDArray[np.int64] = np.clip(np.searchsorted(self.moments, now, side="right") - 1, 0, None)
        return found

    def scores(self, now: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the counts for some users' moments, shape (num_users, num_items)."""
        return self.counts[self.rows(now)]
