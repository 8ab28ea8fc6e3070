"""Who gave which tag to which item and when; and the last post of each user, held out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError
from hangtag.recommend.interactions import parse_day

_READ_ROWS = 4096
_LEAST_POSTS = 5


@dataclass(frozen=True)
class Assignments:
    """Who gave which tag to which item and when; arrays of shape (num_assignments,), positions in the names."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    tags: tuple[str, ...]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    tag: NDArray[np.int64]
    day: NDArray[np.float64]
    num_bad: int = 0

    def only(self, keep: NDArray[np.bool_]) -> Assignments:
        """Return the assignments where `keep` holds; names stay as they are."""
        return replace(self, user=self.user[keep], item=self.item[keep], tag=self.tag[keep], day=self.day[keep])


@dataclass(frozen=True)
class Posts:
    """Questions: which tags does `user[q]` give to `item[q]`; `gold` (num_posts, num_tags) holds the answers."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    gold: sp.csr_matrix = field(repr=False)

    def __len__(self) -> int:
        return len(self.user)


def hold_out(assignments: Assignments, *, seed: int = 0) -> tuple[Assignments, Posts]:
    """Return a past and the last post of each user with five posts or more.

    Of several posts on a user's last day one is drawn. All that the user ever said of its item leaves the past.

    Raises:
        DataError: no user has five posts or more.
    """
    table = np.stack([assignments.user, assignments.day.astype(np.int64), assignments.item], 1)
    posts = np.unique(table, axis=0)
    number = np.bincount(posts[:, 0], minlength=len(assignments.users))
    newest = np.full(len(assignments.users), -np.inf)
    np.maximum.at(newest, posts[:, 0], posts[:, 1])
    last = posts[(posts[:, 1] == newest[posts[:, 0]]) & (number[posts[:, 0]] >= _LEAST_POSTS)]
    if not len(last):
        raise DataError("no user with five posts or more; expected some to learn from")
    last = np.random.default_rng(seed).permutation(last)
    _, first = np.unique(last[:, 0], return_index=True)
    last = last[first]
    chosen = np.full(len(assignments.users), -1)
    chosen[last[:, 0]] = np.arange(len(last))
    post = chosen[assignments.user]
    is_out = (post >= 0) & (assignments.item == last[post, 2])
    is_gold = is_out & (table[:, 1] == last[post, 1])
    shape = (len(last), len(assignments.tags))
    gold = sp.csr_matrix((np.ones(int(is_gold.sum())), (post[is_gold], assignments.tag[is_gold])), shape=shape)
    gold.data[:] = 1
    return assignments.only(~is_out), Posts(last[:, 0], last[:, 2], gold)


def read_assignments(path: str | Path, known: Assignments | None = None) -> Assignments:
    """Return the assignments of a file with the columns user, item, tag, and time or day.

    Positions are those of `known`, where given, with new names behind them. Rows that lack one of the four are
    counted in `num_bad`.

    Raises:
        DataError: the file is missing, of another kind, or holds no assignment.
    """
    file = catalogue_file(path)
    rows = CatalogueRows([file], None)
    names = [
        {name: n for n, name in enumerate(own)}
        for own in ((known.users, known.items, known.tags) if known else ((), (), ()))
    ]
    found: dict[tuple[int, int, int, float], None] = {}
    num_bad = 0
    try:
        while batch := rows.read(_READ_ROWS):
            for _, row in batch:
                values = [] if isinstance(row, str) else [row.get(name) for name in ("user", "item", "tag")]
                day = None if isinstance(row, str) else parse_day(row.get("time", row.get("day")))
                if day is None or any(value in (None, "") for value in values):
                    num_bad += 1
                    continue
                user, item, tag = (
                    own.setdefault(str(value), len(own)) for own, value in zip(names, values, strict=True)
                )
                found[user, item, tag, day] = None
    finally:
        rows.close()
    if not found:
        raise DataError(f"{file.name}: no assignments; expected the columns user, item, tag and day")
    table = np.array(list(found), np.float64)
    user, item, tag = table[:, :3].astype(np.int64).T
    users, items, tags = (tuple(own) for own in names)
    return Assignments(users, items, tags, user, item, tag, table[:, 3], num_bad)


def posts_of(assignments: Assignments) -> Posts:
    """Return every pair of user and item with all its tags as a post."""
    pairs, post = np.unique(np.stack([assignments.user, assignments.item], 1), axis=0, return_inverse=True)
    shape = (len(pairs), len(assignments.tags))
    gold = sp.csr_matrix((np.ones(len(post)), (post.ravel(), assignments.tag)), shape=shape)
    gold.data[:] = 1
    return Posts(pairs[:, 0], pairs[:, 1], gold)
