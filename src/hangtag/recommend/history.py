"""What each user took so far, as sparse rows: which items, how recently, how often."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.interactions import Interactions

RANK_HALF_LIFE = 20.0


@dataclass(frozen=True)
class History:
    """Users' pasts; every matrix has the shape (num_users, num_items) and the same places.

    `taken` holds 1 for an item that the user took, `times` on how many moments, `recent` a weight in (0, 1]
    that halves with every 20 items taken later, `last` the day of the last time. `now` (num_users,) is the
    moment to recommend for, in days since 1970.
    """

    taken: sp.csr_matrix = field(repr=False)
    times: sp.csr_matrix = field(repr=False)
    recent: sp.csr_matrix = field(repr=False)
    last: sp.csr_matrix = field(repr=False)
    now: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, interactions: Interactions, num_items: int, *, now: NDArray[np.float64]) -> History:
        """Return the pasts of all users of `interactions`; the order in a user's past is that of time.

        Items taken at the same moment are equally recent. Pieces (weights) do not count: who takes 200 pieces of
        one item does not like it 200 times as much.
        """
        num_users = len(interactions.users)
        shape = (num_users, num_items)
        key = interactions.user * num_items + interactions.item
        unique, first, inverse, times = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        day = np.full(len(unique), -np.inf)
        np.maximum.at(day, inverse, interactions.day)
        user = unique // num_items
        later = _taken_later(user, day, num_users)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))])

        def matrix(values: NDArray[np.float64]) -> sp.csr_matrix:
            return sp.csr_matrix((values.astype(np.float32), unique % num_items, indptr), shape=shape)

        return cls(
            taken=matrix(np.ones(len(first))),
            times=matrix(times.astype(np.float64)),
            recent=matrix(0.5 ** (later / RANK_HALF_LIFE)),
            last=matrix(day),
            now=now,
        )

    def __getitem__(self, users: NDArray[np.int64] | slice) -> History:
        """Return the pasts of some users."""
        return History(self.taken[users], self.times[users], self.recent[users], self.last[users], self.now[users])

    @property
    def latest(self) -> sp.csr_matrix:
        """What each user took at the latest moment, weights that sum to 1."""
        newest = np.asarray(self.last.max(1).todense()).ravel()
        rows = np.repeat(np.arange(self.last.shape[0]), np.diff(self.last.indptr))
        keep = (self.last.data == newest.astype(np.float32)[rows]).astype(np.float32)
        share = keep / np.maximum(np.bincount(rows, weights=keep, minlength=self.last.shape[0]), 1)[rows]
        found = sp.csr_matrix(
            (share.astype(np.float32), self.last.indices, self.last.indptr), self.last.shape, copy=True
        )
        found.eliminate_zeros()
        return found

    @property
    def size(self) -> NDArray[np.float32]:
        """How many different items each user took, shape (num_users,)."""
        found: NDArray[np.float32] = np.diff(self.taken.indptr).astype(np.float32)
        return found


def _taken_later(user: NDArray[np.int64], day: NDArray[np.float64], num_users: int) -> NDArray[np.float64]:
    """Return how many of the user's items were taken at a later moment than each, shape (num_pairs,)."""
    order = np.lexsort((-day, user))
    sorted_user, sorted_day = user[order], day[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users))[:-1]])
    rank = np.arange(len(user)) - starts[sorted_user]
    is_new = np.ones(len(user), np.bool_)
    is_new[1:] = (sorted_user[1:] != sorted_user[:-1]) | (sorted_day[1:] != sorted_day[:-1])
    position = np.maximum.accumulate(np.where(is_new, np.arange(len(user)), 0))
    found = np.empty(len(user))
    found[order] = rank[position]
    return found
