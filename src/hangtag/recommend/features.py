"""What is known of each user and item before anything is weighed: scores of sources, and features made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.content import Content
from hangtag.recommend.history import History
from hangtag.recommend.interactions import Interactions
from hangtag.recommend.items import Items
from hangtag.recommend.neighbours import cosine_neighbours, ease
from hangtag.recommend.popularity import Popularity

HALF_LIVES = (1 / 3, 1.0, 4.0, np.inf)
"""Half-lives of popularity, in horizons."""

CONTENT = ("tags", "words", "alike", "latest alike", "spread", "popular alike")
"""Sources that speak of items nobody has taken yet; features of the others do not."""

_CONTENT_NEIGHBOURS = 50
_PRIOR_TAKINGS = 5
_TINY = 1e-3


@dataclass(frozen=True)
class Sources:
    """All that scores are made of, fitted on the interactions of all users before a cut.

    `horizon` is how many days ahead is recommended for. `again[i]` is the share of users who took item i once more
    after they took it, shrunk to the mean; `first[i]` the day it was first taken (infinite: never).
    """

    horizon: float
    popularity: tuple[Popularity, ...]
    neighbours: sp.csr_matrix = field(repr=False)
    ease: sp.csr_matrix = field(repr=False)
    tags: Content = field(repr=False)
    words: Content = field(repr=False)
    alike: sp.csr_matrix = field(repr=False)
    again: NDArray[np.float32] = field(repr=False)
    first: NDArray[np.float64] = field(repr=False)

    @classmethod
    def fit(cls, interactions: Interactions, items: Items, history: History, *, horizon: float) -> Sources:
        """Return the sources of these interactions; `history` is that of all their users."""
        size = len(items)
        words = Content.of(items.has_word)
        alike = words.neighbours(_CONTENT_NEIGHBOURS) + Content.of(items.has_tag).neighbours(_CONTENT_NEIGHBOURS)
        number = np.bincount(history.taken.indices, minlength=size)
        repeated = np.bincount(history.times.indices, weights=history.times.data > 1, minlength=size)
        mean = (repeated.sum() + 1) / (number.sum() + 1)
        first = np.full(size, np.inf)
        np.minimum.at(first, interactions.item, interactions.day)
        return cls(
            horizon=horizon,
            popularity=tuple(
                Popularity.of(interactions, size, half_life=horizon * factor, now=history.now)
                for factor in HALF_LIVES
            ),
            neighbours=cosine_neighbours(history.taken),
            ease=ease(history.taken),
            tags=Content.of(items.has_tag),
            words=words,
            alike=alike.tocsr(),
            again=((repeated + _PRIOR_TAKINGS * mean) / (number + _PRIOR_TAKINGS)).astype(np.float32),
            first=first,
        )

    def scores(self, history: History) -> dict[str, NDArray[np.float32]]:
        """Return what each source says, by name, shapes (num_users, num_items); higher is better."""
        found = {
            f"popular {factor:.2g}": source.scores(history.now)
            for factor, source in zip(HALF_LIVES, self.popularity, strict=True)
        }
        latest = history.latest
        found["neighbours"] = (history.recent @ self.neighbours).toarray()
        found["ease"] = (history.recent @ self.ease).toarray()
        found["latest neighbours"] = (latest @ self.neighbours).toarray()
        found["tags"] = self.tags.scores(history)
        found["words"] = self.words.scores(history)
        found["alike"] = (history.recent @ self.alike).toarray()
        found["latest alike"] = (latest @ self.alike).toarray()
        # What speaks for the items that an item is like, on average: all that is known of one nobody took yet.
        weight = 1 / np.maximum(np.asarray(self.alike.sum(1)).ravel(), _TINY)
        mean = (sp.diags(weight.astype(np.float32)) @ self.alike).T.tocsr()
        found["spread"] = found["neighbours"] @ mean
        found["popular alike"] = np.log1p(found["popular 4"]) @ mean
        return found


def features(sources: Sources, history: History) -> dict[str, NDArray[np.float32]]:
    """Return the features of every user and item, by name, shapes (num_users, num_items).

    Counts enter by their logarithms, so that a weight is an exponent; similarities as a share of the user's
    largest, its square, and their logarithm. Products with the size of the user's past let weights differ
    between new and old customers.
    """
    scores = sources.scores(history)
    size = _log_size(history)
    found: dict[str, NDArray[np.float32]] = {"popular alike": scores.pop("popular alike")}
    for name, value in scores.items():
        if name.startswith("popular"):
            found[name] = np.log(value + 0.3)
            continue
        found[name] = value / np.maximum(value.max(1, keepdims=True), _TINY)
        found[f"{name} squared"] = found[name] ** 2
        found[f"{name} log"] = np.log1p(value / _TINY) / 5
        found[f"{name} x size"] = found[name] * size
    found["popular x size"] = found["popular 1"] * size
    found |= _of_taken(sources, history, found["popular 1"])
    age = np.log1p(np.maximum(history.now[:, None] - sources.first[None, :], 0) / sources.horizon).astype(
        np.float32
    )
    age[np.isinf(age)] = 0
    found["age"] = age
    found["unseen"] = np.broadcast_to(np.isinf(sources.first)[None, :], age.shape).astype(np.float32)
    return found


def _log_size(history: History) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (np.log1p(history.size)[:, None] / 3).astype(np.float32)
    return found


def _of_taken(sources: Sources, history: History, popular: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return features of items that the user took before; 0 for all others."""
    taken = history.taken.toarray()
    size = _log_size(history)
    since = np.maximum(taken * history.now[:, None] - history.last.toarray(), 0)
    times = np.asarray(history.times.sum(1)).ravel()
    habit = np.asarray(history.times.power(2).sum(1)).ravel() / np.maximum(times, 1)
    return {
        "taken": taken,
        "taken times": np.log1p(history.times.toarray()),
        "taken since": np.log1p(since / sources.horizon).astype(np.float32),
        "taken latest": (history.latest > 0).toarray().astype(np.float32),
        "taken x size": taken * size,
        "taken x habit": taken * np.log(np.maximum(habit, 1)).astype(np.float32)[:, None],
        "taken x again": taken * np.log(sources.again)[None, :],
        "taken x popular": taken * popular,
    }


def is_content(name: str) -> bool:
    """Whether a feature (see `features`) is known of items that nobody has taken yet."""
    return any(name == source or name.startswith(f"{source} ") for source in CONTENT)
