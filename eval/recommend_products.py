"""Products and next tags for customers: arms on what users took next, and on items that nobody took yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from eval.recommend_figures import compared
from hangtag import metrics, program
from hangtag.recommend.cut import Cut, taken_next
from hangtag.recommend.features import features
from hangtag.recommend.history import History
from hangtag.recommend.interactions import Interactions, read_interactions
from hangtag.recommend.items import Items, read_items
from hangtag.recommend.ranking import top
from hangtag.recommend.recommender import Recommender, batches, with_new
from hangtag.vocabulary import TagVocabulary

RECALL_AT = (12, 100)
OWN, REPEATS = "hybrid", "bought before, then popular"
NUM_NEW, NEW_DEPTH, NEW_EVERY = 500, 20, 10
_RANDOM_LISTS = 20
_TAGS_AT = 10
_LARGE = 1e3
_ACTIVITY = ((1, 4), (5, 19), (20, None))

Matrix = NDArray[np.float32]


def evaluate_products(folder: Path, cut: Cut, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return figures of every arm for all items, items not taken before, next tags and new items."""
    vocabulary = TagVocabulary.from_path(folder / "vocabulary.json")
    items = read_items(folder / "items.jsonl.gz", vocabulary=vocabulary)
    train = read_interactions(folder / "interactions_train.csv.gz", items=items.ids)
    test = read_interactions(folder / "interactions_test.csv.gz", items=items.ids, users=train.users)
    test = test.only(test.user < len(train.users))
    following = taken_next(test, len(items))[: len(train.users)]
    users = np.flatnonzero(np.diff(following.indptr))
    recommender = Recommender.fit(train, items, cut, seed=seed)
    found = _rank_all(recommender, recommender.history[users], following[users])
    options = {"resamples": resamples, "seed": seed}
    sections = {name: compared(arms, OWN, **options) for name, arms in found.values.items()}
    activity = _by_activity(recommender.history.size[users], found.values["all items"], **options)
    return {
        "kind": "products",
        "cut": cut.kind,
        "horizon": cut.horizon,
        "num_items": len(items),
        "num_interactions": len(train),
        "read": {"train": dict(train.counts), "test": dict(test.counts)},
        "num_learned_from": recommender.num_learned_from,
        "own": OWN,
        "weights": dict(recommender.blend.weights),
        "next_tags": {"weights": dict(recommender.next_tags.ranking.weights)},
        "sections": sections,
        "lists": found.lists(len(items), recommender),
        "activity": activity,
        "new": _new_items(train, items, cut, following, **options),
    }


class _Found:
    """Values of each arm a section, a user; and the first places of each arm's lists."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, dict[str, list[NDArray[Any]]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        self._lists: dict[str, list[NDArray[np.int64]]] = defaultdict(list)

    def add(self, section: str, arm: str, values: Mapping[str, NDArray[np.float64]]) -> None:
        for name, value in values.items():
            self._values[section][arm][name].append(value)

    def add_list(self, arm: str, ranked: NDArray[np.int64]) -> None:
        self._lists[arm].append(ranked[:, : RECALL_AT[0]])

    @property
    def values(self) -> dict[str, dict[str, dict[str, NDArray[np.float64]]]]:
        return {
            section: {
                arm: {name: np.concatenate(parts) for name, parts in values.items()}
                for arm, values in arms.items()
            }
            for section, arms in self._values.items()
        }

    def lists(self, num_items: int, recommender: Recommender) -> dict[str, dict[str, float]]:
        """Return coverage, novelty and the share of unseen items of each arm's lists."""
        taken = np.bincount(recommender.history.taken.indices, minlength=num_items)
        share = np.maximum(taken, 1) / recommender.history.taken.shape[0]
        found = {}
        for arm, parts in self._lists.items():
            ranked = np.concatenate(parts)
            found[arm] = {
                "coverage": metrics.coverage(ranked, num_items),
                "novelty": metrics.novelty(ranked, share),
                "new": float((taken[ranked] == 0).mean()),
            }
        return found


def _rank_all(recommender: Recommender, history: History, following: sp.csr_matrix) -> _Found:
    """Rank everything for each user by every arm."""
    found = _Found()
    has_tag = recommender.items.has_tag
    for batch in program.progress("ranking", "batch", iterable=list(batches(len(history.now)))):
        part, gold = history[batch], following[batch].toarray() > 0
        taken = part.taken.toarray() > 0
        hybrid, arms = _arms(recommender, part)
        for arm, scores in arms.items():
            ranked = top(scores, RECALL_AT[-1])
            found.add_list(arm, ranked)
            found.add("all items", arm, _values(ranked, gold))
            if arm != REPEATS:
                open_scores = np.where(taken, -np.inf, scores).astype(np.float32)
                found.add("without repeats", arm, _values(top(open_scores, RECALL_AT[-1]), gold & ~taken))
        wanted = (following[batch] @ has_tag).toarray() > 0
        for arm, scores in _tag_arms(recommender, part, hybrid).items():
            ranked = top(scores, _TAGS_AT)
            hits = metrics.hits_of(ranked, wanted)
            found.add("next tags", arm, metrics.ranking_metrics(hits, wanted.sum(1), recall_at=(_TAGS_AT,)))
    return found


def _values(ranked: NDArray[np.int64], gold: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    return metrics.ranking_metrics(metrics.hits_of(ranked, gold), gold.sum(1), recall_at=RECALL_AT)


def _arms(recommender: Recommender, history: History) -> tuple[Matrix, dict[str, Matrix]]:
    known = features(recommender.sources, history)
    scores = recommender.sources.scores(history)
    hybrid = recommender.blend.scores(known)
    before = _LARGE * (known["taken"] - known["taken since"] / 100)
    popular = scores["popular inf"]
    share = popular / popular.max()
    return hybrid, {
        "popular": popular,
        "popular lately": scores["popular 1"],
        REPEATS: before + share,
        "item-kNN": scores["neighbours"] + share / _LARGE,
        "bought before, then item-kNN": before + known["neighbours"] + share / _LARGE,
        "EASE": scores["ease"] + share / _LARGE,
        "tag profile": scores["tags"],
        "tag profile x log popularity": scores["tags"] * np.log1p(popular),
        "words profile": scores["words"],
        OWN: hybrid,
    }


def _tag_arms(recommender: Recommender, history: History, hybrid: Matrix) -> dict[str, Matrix]:
    known = recommender.next_tags.features(recommender.sources, history, [hybrid])
    plain = (history.taken @ recommender.items.has_tag).toarray()
    return {
        "popular": known["population"],
        "own share": plain + known["population"] / _LARGE,
        "own and popular, smoothed": known["own"],
        "of likely products": known["expected"],
        OWN: recommender.next_tags.ranking.scores(known),
    }


def _by_activity(
    size: NDArray[np.float32], arms: Mapping[str, Mapping[str, NDArray[np.float64]]], **options: int
) -> dict[str, Any]:
    """Return the figures of users with few, some and many items in their past."""
    found = {}
    for low, high in _ACTIVITY:
        chosen = (size >= low) & (size <= (high or np.inf))
        if chosen.any():
            part = {
                arm: {name: values[name][chosen] for name in ("recall@12", "map@12")}
                for arm, values in arms.items()
            }
            found[f"{low} to {high}" if high else f"{low} and more"] = compared(part, OWN, **options)
    return found


def _new_items(
    train: Interactions, items: Items, cut: Cut, following: sp.csr_matrix, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return how items are ranked whose purchases were taken out of train: among themselves, and among all."""
    generator = np.random.default_rng(seed)
    sold = np.flatnonzero(np.bincount(train.item, minlength=len(items)))
    new = np.sort(generator.permutation(sold)[:NUM_NEW])
    is_new = np.zeros(len(items), np.bool_)
    is_new[new] = True
    recommender = Recommender.fit(train.only(~is_new[train.item]), items, cut, seed=seed)
    # A list can hold only what is left of a user's past.
    has_past = recommender.history.size > 0
    users = np.flatnonzero((np.diff(following[:, new].indptr) > 0) & has_past)
    found = _Found()
    unseen = np.isinf(recommender.sources.first)
    for batch in program.progress("new items", "batch", iterable=list(batches(len(users)))):
        part, gold = recommender.history[users[batch]], following[users[batch]].toarray() > 0
        gold &= is_new
        known = features(recommender.sources, part)
        hybrid, content = recommender.blend.scores(known), recommender.new.scores(known)
        among = {
            "tag profile": known["tags"],
            "words profile": known["words"],
            OWN: content,
        }
        for arm, scores in among.items():
            hits = metrics.hits_of(top(np.ascontiguousarray(scores[:, new]), 100), gold[:, new])
            values = metrics.ranking_metrics(hits, gold.sum(1), recall_at=(NEW_DEPTH, 100))
            found.add("among the new items", arm, values)
        found.add("among the new items", "random", _random(gold[:, new], generator))
        popular = known["tags"] * np.log1p(np.exp(known["popular inf"]) - np.float32(0.3))
        ranked = top(hybrid, RECALL_AT[-1])
        full = {
            "tag profile x log popularity": top(popular, RECALL_AT[-1]),
            "hybrid, by its weights": ranked,
            OWN: with_new(ranked, content, unseen, every=NEW_EVERY),
        }
        for arm, places in full.items():
            found.add("among all items", arm, _values(places, gold))
    return {
        "num_new": len(new),
        "every": NEW_EVERY,
        "sections": {
            name: compared(arms, OWN, resamples=resamples, seed=seed) for name, arms in found.values.items()
        },
    }


def _random(gold: NDArray[np.bool_], generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return the mean of 20 random lists a user: one alone is far off chance where users are few."""
    drawn = []
    for _ in range(_RANDOM_LISTS):
        ranked = top(generator.random(gold.shape).astype(np.float32), 100)
        hits = metrics.hits_of(ranked, gold)
        drawn.append(metrics.ranking_metrics(hits, gold.sum(1), recall_at=(NEW_DEPTH, 100)))
    return {name: np.mean([values[name] for values in drawn], axis=0) for name in drawn[0]}
