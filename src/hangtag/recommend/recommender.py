"""Which products, and in which order: sources blended by weights that were learned behind a cut in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.recommend.cut import Cut, taken_next
from hangtag.recommend.features import Sources, features, is_content
from hangtag.recommend.history import History
from hangtag.recommend.interactions import Interactions
from hangtag.recommend.items import Items
from hangtag.recommend.profile import TagRanking
from hangtag.recommend.ranking import Candidates, Ranking, top

LEARN_FROM = 1500
BATCH = 64
_TOP, _RANDOM = 60, 100
_BY = ("popular 1", "neighbours log", "ease log", "tags", "words", "alike log", "spread")


@dataclass(frozen=True)
class Recommender:
    """Sources fitted on all interactions, and weights of their features learned on the last of them.

    `blend` ranks all items, `new` those that nobody has taken yet, by content alone. `next_tags` ranks tags.
    """

    items: Items = field(repr=False)
    cut: Cut
    sources: Sources = field(repr=False)
    history: History = field(repr=False)
    users: dict[str, int] = field(repr=False)
    blend: Ranking
    new: Ranking
    next_tags: TagRanking
    num_learned_from: int

    @classmethod
    def fit(cls, interactions: Interactions, items: Items, cut: Cut, *, seed: int = 0) -> Recommender:
        """Return a recommender for these users and items.

        The interactions are cut as `cut` says. Sources are fitted on the past, weights on what up to 1500 users
        took in the future; then the sources are fitted anew on all. `interactions.items` must be `items.ids`.

        Raises:
            DataError: nothing is left to learn from behind the cut.
        """
        size = len(items)
        past, future = cut.split(interactions) if len(interactions) else (interactions, interactions)
        following = taken_next(future, size)
        users = np.flatnonzero(np.diff(following.indptr))
        if not len(users):
            raise DataError(
                f"{len(interactions)} interactions: no user has some on both sides of the cut; expected users "
                "who came back. Give more interactions, or another horizon"
            )
        generator = np.random.default_rng(seed)
        users = np.sort(generator.permutation(users)[:LEARN_FROM])
        before = History.of(past, size, now=cut.now(past))
        horizon = cut.days(interactions)
        sources = Sources.fit(past, items, before, horizon=horizon)
        learned = learn(sources, before[users], following[users], generator)
        blend, new = learned
        tags = TagRanking.fit(
            items, sources, before[users], following[users], blend_scores(sources, blend, before[users])
        )
        history = History.of(interactions, size, now=cut.now(interactions))
        return cls(
            items=items,
            cut=cut,
            sources=Sources.fit(interactions, items, history, horizon=horizon),
            history=history,
            users={name: position for position, name in enumerate(interactions.users)},
            blend=blend,
            new=new,
            next_tags=tags,
            num_learned_from=len(users),
        )

    def scores(self, history: History) -> NDArray[np.float32]:
        """Return how likely each item is taken next, as log-odds up to a constant; (num_users, num_items).

        Memory: a few dozen arrays of that shape; give some 64 users at a time.
        """
        return self.blend.scores(features(self.sources, history))

    def recommend(
        self, history: History, count: int, *, with_taken: bool = True, new_every: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the best items of each user, best first, and their scores, shapes (num_users, count).

        `with_taken` False leaves out what the user took before. `new_every` n gives every n-th place to an item
        that nobody has taken yet, the best by content; 0 leaves it to the blend.
        """
        items, values = [], []
        for batch in batches(len(history.now)):
            part = history[batch]
            known = features(self.sources, part)
            scores = self.blend.scores(known)
            if not with_taken:
                scores[part.taken.nonzero()] = -np.inf
            ranked = top(scores, count)
            if new_every:
                ranked = with_new(ranked, self.new.scores(known), np.isinf(self.sources.first), every=new_every)
            items.append(ranked)
            values.append(np.take_along_axis(scores, ranked, 1))
        return np.concatenate(items), np.concatenate(values)


def with_new(
    ranked: NDArray[np.int64], scores: NDArray[np.float32], is_new: NDArray[np.bool_], *, every: int
) -> NDArray[np.int64]:
    """Return `ranked` (num_users, count) with every n-th place given to the best new item not in it yet."""
    found = ranked.copy()
    places = np.arange(every - 1, ranked.shape[1], every)
    number = min(len(places), int(is_new.sum()))
    best = top(np.where(is_new[None, :], scores, -np.inf).astype(np.float32), number)
    for row, (old, new) in enumerate(zip(ranked, best, strict=True)):
        rest = old[~np.isin(old, new)]
        mixed = list(rest)
        for place, item in zip(places, new, strict=False):
            mixed.insert(place, item)
        found[row] = mixed[: ranked.shape[1]]
    return found


def batches(number: int, size: int = BATCH) -> Iterator[NDArray[np.int64]]:
    """Yield the positions 0 to `number` in parts."""
    for start in range(0, number, size):
        yield np.arange(start, min(number, start + size))


def blend_scores(sources: Sources, blend: Ranking, history: History) -> Iterator[NDArray[np.float32]]:
    """Yield the scores of all items for some users after others."""
    for batch in batches(len(history.now)):
        yield blend.scores(features(sources, history[batch]))


def learn(
    sources: Sources, history: History, following: sp.csr_matrix, generator: np.random.Generator
) -> tuple[Ranking, Ranking]:
    """Return weights for all items, and weights of content alone for items that nobody has taken yet.

    Both are learned on what each user took next; for the second, only what the user had not taken before counts,
    and content knows nothing of who took an item.
    """
    parts = [
        _candidates(features(sources, history[batch]), history[batch], following[batch], generator, batch[0])
        for batch in batches(len(history.now))
    ]
    names = parts[0].names
    x, user, target, offset = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "user", "target", "offset")
    )
    blend = Ranking.fit(Candidates(names, x, user, target, offset))
    columns = [position for position, name in enumerate(names) if is_content(name)]
    is_open = x[:, names.index("taken")] == 0
    mass = np.bincount(user[is_open], weights=target[is_open], minlength=user.max() + 1)
    keep = is_open & (mass[user] > 0)
    new = Ranking.fit(
        Candidates(
            tuple(names[column] for column in columns),
            x[keep][:, columns],
            user[keep],
            target[keep] / mass[user[keep]],
            offset[keep],
        )
    )
    return blend, new


def _candidates(
    known: dict[str, NDArray[np.float32]],
    history: History,
    following: sp.csr_matrix,
    generator: np.random.Generator,
    first_user: int,
) -> Candidates:
    """Return the best by each source, what was taken before and next, and a sample of all else."""
    target = following.toarray()
    is_in = (target > 0) | (known["taken"] > 0)
    for name in _BY:
        np.put_along_axis(is_in, top(known[name], _TOP), True, 1)
    left = is_in.shape[1] - is_in.sum(1, keepdims=True)
    rate = np.minimum(1.0, _RANDOM / np.maximum(left, 1))
    is_drawn = (generator.random(is_in.shape) < rate) & ~is_in
    offset = np.where(is_drawn, -np.log(rate), 0.0)
    rows, columns = np.nonzero(is_in | is_drawn)
    return Candidates(
        names=tuple(known),
        x=np.stack([value[rows, columns] for value in known.values()], 1),
        user=rows + first_user,
        target=(target / target.sum(1, keepdims=True))[rows, columns].astype(np.float64),
        offset=offset[rows, columns],
    )
