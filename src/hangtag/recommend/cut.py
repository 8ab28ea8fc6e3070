"""Past and future: a cut in time, or the last takings of each user, to learn from and to measure with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.interactions import Interactions, from_last

LAST_SHARE, MOST_LAST, LEAST_PAST = 5, 5, 5

CutKind = Literal["time", "last"]


@dataclass(frozen=True)
class Cut:
    """How the future is told from the past.

    `time`: the last `horizon` days are the future, at most a third of all days, so that a past remains. `last`:
    of each user with five takings or more the last fifth, at most five; others' later takings are then known.
    """

    kind: CutKind
    horizon: float

    def split(self, interactions: Interactions) -> tuple[Interactions, Interactions]:
        """Return past and future; the future holds users with a past only."""
        if self.kind == "time":
            day = self.end(interactions) - self.days(interactions)
            past, future = interactions.until(day), interactions.since(day)
        else:
            number = np.bincount(interactions.user, minlength=len(interactions.users))
            held = np.clip(number // LAST_SHARE, 1, MOST_LAST) * (number >= LEAST_PAST)
            is_last = from_last(interactions) < held[interactions.user]
            past, future = interactions.only(~is_last), interactions.only(is_last)
        has_past = np.bincount(past.user, minlength=len(past.users)) > 0
        return past, future.only(has_past[future.user])

    def days(self, interactions: Interactions) -> float:
        """Return the horizon, at most a third of all days."""
        return min(self.horizon, float(self.end(interactions) - interactions.day.min()) / 3)

    def now(self, past: Interactions) -> NDArray[np.float64]:
        """Return the moment to recommend for of each user: the end of the past, or the user's own last day."""
        now = np.full(len(past.users), self.end(past))
        if self.kind == "last":
            # In order of time: what is written last stays.
            now[past.user] = past.day
        return now

    @staticmethod
    def end(interactions: Interactions) -> float:
        """Return the day after the last."""
        return float(np.floor(interactions.day.max()) + 1)


def taken_next(future: Interactions, num_items: int) -> sp.csr_matrix:
    """Return 1 where a user takes an item in the future, shape (num_users, num_items)."""
    shape = (len(future.users), num_items)
    found = sp.csr_matrix((np.ones(len(future), np.float32), (future.user, future.item)), shape=shape)
    found.data[:] = 1
    return found
