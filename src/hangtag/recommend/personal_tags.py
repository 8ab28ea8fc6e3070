"""Which tags does this person give to this item: what each source says of every tag, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.assignments import Assignments, Posts, hold_out
from hangtag.recommend.ranking import Candidates, Ranking, top

RANK_HALF_LIFE = 30.0
_TINY = 1e-3
_PENALTY = 3e-2
_POPULAR = 50


class TagSources:
    """What a past says of the tags of a post, a source each.

    `own` is the user's tags by how often, `recent` with newer ones counting more, `latest` those of the last day;
    `given` the item's tags by how many gave them; `people` the item's tags from those who tag like this user;
    `alike` the user's tags on items that others tag like this one, `near` with the nearest counting far more;
    `translated` the user's tags on items where they meet this item's tags; `popular` all tags.
    """

    def __init__(self, past: Assignments) -> None:
        num_users, num_items, num_tags = len(past.users), len(past.items), len(past.tags)
        self.past = past
        one = np.ones(len(past.user), np.float32)
        self._own = _counts(past.user, past.tag, one, (num_users, num_tags))
        self._recent = _counts(past.user, past.tag, _recency(past), (num_users, num_tags))
        newest = np.full(num_users, -np.inf)
        np.maximum.at(newest, past.user, past.day)
        is_latest = (past.day == newest[past.user]).astype(np.float32)
        self._latest = _counts(past.user, past.tag, is_latest, (num_users, num_tags))
        self._given = _counts(past.item, past.tag, one, (num_items, num_tags))
        self._popular = np.asarray(self._own.sum(0)).ravel()
        self._idf = np.log(num_users / (1 + np.diff((self._own > 0).tocsc().indptr))).astype(np.float32)
        self._user_vectors = _unit(self._own.log1p() @ sp.diags(self._idf))
        self._by_user = _by(past.user, past.item, past.tag, num_users, num_items, num_tags)
        self._by_item = _by(past.item, past.user, past.tag, num_items, num_users, num_tags)

    def scores(self, posts: Posts) -> dict[str, NDArray[np.float32]]:
        """Return what each source says, by name, shapes (num_posts, num_tags)."""
        found = {
            "own": self._own[posts.user].toarray(),
            "recent": self._recent[posts.user].toarray(),
            "latest": self._latest[posts.user].toarray(),
            "given": self._given[posts.item].toarray(),
            "popular": np.broadcast_to(self._popular, (len(posts), len(self._popular))).astype(np.float32),
        }
        shape = found["own"].shape
        found |= {name: np.zeros(shape, np.float32) for name in ("people", "alike", "translated", "near")}
        item_vectors = _unit(self._given.log1p() @ sp.diags(self._idf))
        for post, (user, item) in enumerate(zip(posts.user, posts.item, strict=True)):
            others, own_tags = self._by_item[item]
            near = self._user_vectors[others] @ self._user_vectors[user].T
            found["people"][post] = near.toarray().ravel() @ own_tags
            items, tags = self._by_user[user]
            # The user's own word does not count for how others tag the user's items.
            crowd = _unit((self._given[items] - tags).log1p() @ sp.diags(self._idf))
            alike = (crowd @ item_vectors[item].T).toarray().ravel()
            found["alike"][post] = alike @ tags
            found["near"][post] = alike**4 @ tags
            given = self._given[item].log1p()
            overlap = ((tags > 0).astype(np.float32) @ given.T).toarray().ravel()
            found["translated"][post] = overlap @ tags
        return found


def tag_features(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return features of every post and tag, by name: shares of the sum, their logarithms, and who has none."""
    found: dict[str, NDArray[np.float32]] = {}
    for name, value in scores.items():
        share = value / np.maximum(value.sum(1, keepdims=True), _TINY)
        found[name] = share
        found[f"{name} of top"] = value / np.maximum(value.max(1, keepdims=True), _TINY)
        found[f"log {name}"] = np.log(share + _TINY)
        found[f"any {name}"] = (value > 0).astype(np.float32)
    found["own x given"] = np.sqrt(found["own"] * found["given"])
    found["log own x any given"] = found["log own"] * found["any given"]
    found["log given x any own"] = found["log given"] * found["any own"]
    crowd = np.log1p(scores["given"].sum(1, keepdims=True)) / 5
    past = np.log1p(scores["own"].sum(1, keepdims=True)) / 5
    for name in ("log own", "log given", "log alike", "log people"):
        found[f"{name} x crowd"] = found[name] * crowd
        found[f"{name} x past"] = found[name] * past
    return found


@dataclass(frozen=True)
class PersonalTags:
    """Sources of a past, and weights of their features learned on the last post of each user."""

    sources: TagSources
    ranking: Ranking
    num_learned_from: int

    @classmethod
    def fit(cls, assignments: Assignments, *, seed: int = 0) -> PersonalTags:
        """Return what is learned from these assignments: weights on held-out last posts, then sources on all.

        Raises:
            DataError: no user has five posts or more.
        """
        past, posts = hold_out(assignments, seed=seed)
        known = tag_features(TagSources(past).scores(posts))
        gold = posts.gold.toarray()
        is_in = (gold > 0) | np.any([known[f"any {name}"] > 0 for name in ("own", "given", "people")], axis=0)
        np.put_along_axis(is_in, top(known["popular"], _POPULAR), True, 1)
        rows, columns = np.nonzero(is_in)
        candidates = Candidates(
            names=tuple(known),
            x=np.stack([value[rows, columns] for value in known.values()], 1),
            user=rows,
            target=(gold / gold.sum(1, keepdims=True))[rows, columns],
            offset=np.zeros(len(rows)),
        )
        return cls(TagSources(assignments), Ranking.fit(candidates, penalty=_PENALTY), len(posts))

    def scores(self, posts: Posts) -> NDArray[np.float32]:
        """Return how likely each tag is, as log-odds up to a constant, shape (num_posts, num_tags)."""
        return self.ranking.scores(tag_features(self.sources.scores(posts)))


def _counts(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[np.float32], shape: tuple[int, int]
) -> sp.csr_matrix:
    return sp.csr_matrix((values, (rows, columns)), shape=shape, dtype=np.float32)


def _recency(past: Assignments) -> NDArray[np.float32]:
    """Return a weight that halves with every 30 assignments of the same user on later days."""
    order = np.lexsort((-past.day, past.user))
    user, day = past.user[order], past.day[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(past.users)))[:-1]])
    is_new = np.ones(len(user), np.bool_)
    is_new[1:] = (user[1:] != user[:-1]) | (day[1:] != day[:-1])
    first = np.maximum.accumulate(np.where(is_new, np.arange(len(user)), 0))
    found = np.empty(len(user), np.float32)
    found[order] = 0.5 ** ((first - starts[user]) / RANK_HALF_LIFE)
    return found


def _unit(matrix: sp.csr_matrix) -> sp.csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return (sp.diags((1 / np.maximum(length, 1e-9)).astype(np.float32)) @ matrix).tocsr()


def _by(
    group: NDArray[np.int64],
    other: NDArray[np.int64],
    tag: NDArray[np.int64],
    num_groups: int,
    num_others: int,
    num_tags: int,
) -> list[tuple[NDArray[np.int64], sp.csr_matrix]]:
    """Return for each group which others it has, and their tags, shape (its others, num_tags)."""
    order = np.lexsort((other, group))
    bounds = np.searchsorted(group[order], np.arange(num_groups + 1))
    found = []
    for start, end in pairwise(bounds):
        part = order[start:end]
        held, rows = np.unique(other[part], return_inverse=True)
        shape = (len(held), num_tags)
        found.append((held, sp.csr_matrix((np.ones(len(part), np.float32), (rows, tag[part])), shape=shape)))
    return found
