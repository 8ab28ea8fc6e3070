"""Which tags a user wants: a smoothed profile with its reasons, and a learned ranking of the next tags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.features import Sources
from hangtag.recommend.history import History
from hangtag.recommend.items import Items, idf
from hangtag.recommend.ranking import Candidates, Ranking

_STRENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_TINY = 1e-4
_NUM_REASONS = 3


@dataclass(frozen=True)
class TagWish:
    """A tag of a profile: its share in its facet, how many times that of all users, and the items behind it."""

    tag: str
    facet: str
    share: float
    lift: float
    interest: float
    because: tuple[str, ...]


@dataclass(frozen=True)
class TagRanking:
    """What tags the next items of a user hold: learned weights over shares of tags.

    `strength` is how many takings the population's share counts for: the one that makes the next tags of
    validation users likeliest.
    """

    ranking: Ranking
    strength: float
    has_tag: sp.csr_matrix = field(repr=False)

    @classmethod
    def fit(
        cls,
        items: Items,
        sources: Sources,
        history: History,
        following: sp.csr_matrix,
        scores: Iterable[NDArray[np.float32]],
    ) -> TagRanking:
        """Return what is learned from the tags of what users took next; `scores` are those of the items."""
        held = items.has_tag
        target = ((following @ held) > 0).toarray().astype(np.float64)
        is_told = target.sum(1) > 0
        found = cls(Ranking({}), choose_strength(history, sources, held, target), held)
        known = found.features(sources, history, scores)
        share = target / np.maximum(target.sum(1, keepdims=True), 1)
        rows = np.repeat(np.flatnonzero(is_told), held.shape[1])
        columns = np.tile(np.arange(held.shape[1]), int(is_told.sum()))
        x = np.stack([value[rows, columns] for value in known.values()], 1)
        candidates = Candidates(tuple(known), x, rows, share[rows, columns], np.zeros(len(rows)))
        return cls(Ranking.fit(candidates), found.strength, held)

    def features(
        self, sources: Sources, history: History, scores: Iterable[NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Return features of every user and tag, by name, shapes (num_users, num_tags).

        `expected` is the share of a tag in the items that are likely next: softmax of their scores.
        """
        population = tag_population(sources, history, self.has_tag)
        shares = {
            "own": tag_shares(history.recent @ self.has_tag, population, self.strength),
            "all past": tag_shares(history.taken @ self.has_tag, population, self.strength),
            "latest": tag_shares(history.latest @ self.has_tag, population, self.strength / 10),
            "population": population,
            "expected": np.concatenate([_expected(part, self.has_tag) for part in scores]),
        }
        found = {f"log {name}": np.log(value + _TINY) for name, value in shares.items()}
        found |= {name: value / value.max(1, keepdims=True) for name, value in shares.items()}
        return found

    def scores(
        self, sources: Sources, history: History, scores: Iterable[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return how likely each tag is among those of the next items, as log-odds up to a constant."""
        return self.ranking.scores(self.features(sources, history, scores))


def _expected(scores: NDArray[np.float32], held: sp.csr_matrix) -> NDArray[np.float32]:
    mass = np.exp(scores - scores.max(1, keepdims=True))
    found: NDArray[np.float32] = (mass / mass.sum(1, keepdims=True)) @ held
    found /= np.maximum(found.sum(1, keepdims=True), _TINY)
    return found


def tag_population(sources: Sources, history: History, held: sp.csr_matrix) -> NDArray[np.float32]:
    """Return each tag's share in what all take lately, at each user's moment, (num_users, num_tags)."""
    popular = sources.popularity[1]
    shares = popular.counts @ held + _TINY
    shares = shares / shares.sum(1, keepdims=True)
    found: NDArray[np.float32] = shares[popular.rows(history.now)].astype(np.float32)
    return found


def tag_shares(own: sp.csr_matrix, population: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Return each user's shares of tags, smoothed to the population's; rows sum to 1.

    p(t) = (n(t) + m·q(t)) / (Σ n + m): n the user's weighted counts, q the population's shares, m `strength`.
    Source: Dirichlet smoothing, Zhai and Lafferty, "A study of smoothing methods for language models" (2004).
    """
    counts = own.toarray()
    found: NDArray[np.float32] = (counts + strength * population) / (counts.sum(1, keepdims=True) + strength)
    return found


def choose_strength(history: History, sources: Sources, held: sp.csr_matrix, target: NDArray[np.float64]) -> float:
    """Return the strength of smoothing that gives tags of what users took next the greatest mean log share."""
    population = tag_population(sources, history, held)
    own = history.recent @ held
    worth = [(target * np.log(tag_shares(own, population, strength) + 1e-9)).sum() for strength in _STRENGTHS]
    return _STRENGTHS[int(np.argmax(worth))]


def profile(
    history: History, items: Items, sources: Sources, *, strength: float, per_facet: int
) -> dict[str, list[TagWish]]:
    """Return the tags that the one user of `history` is most interested in, by facet, best first.

    Shares are taken within a facet and smoothed to the population's. Interest is share · idf: what the user often
    takes and the shop seldom has. A user without a past gets the population's shares, with lift 1.
    """
    population = tag_population(sources, history, items.has_tag)[0]
    counts = (history.recent @ items.has_tag).toarray()[0]
    rarity = idf(items.has_tag)
    found = {}
    for facet in sorted(set(items.facets)):
        members = np.flatnonzero([own == facet for own in items.facets])
        general = population[members] / population[members].sum()
        share = (counts[members] + strength * general) / (counts[members].sum() + strength)
        interest = share * rarity[members]
        order = np.argsort(-interest, kind="stable")[:per_facet]
        found[facet] = [
            TagWish(
                tag=items.tags[members[place]],
                facet=facet,
                share=float(share[place]),
                lift=float(share[place] / general[place]),
                interest=float(interest[place]),
                because=_because(history, items, int(members[place])),
            )
            for place in order
        ]
    return found


def _because(history: History, items: Items, tag: int) -> tuple[str, ...]:
    """Return the user's most recent items with a tag."""
    weight = history.recent.multiply(items.has_tag[:, [tag]].T).tocsr()
    order = np.argsort(-weight.data, kind="stable")[:_NUM_REASONS]
    return tuple(items.ids[item] for item in weight.indices[order])
