"""Which tags does this person give to this item: arms on the last posts of users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.recommend_figures import compared
from hangtag import metrics, program
from hangtag.recommend.assignments import hold_out, posts_of, read_assignments
from hangtag.recommend.folk_rank import folk_rank
from hangtag.recommend.personal_tags import PersonalTags, TagSources
from hangtag.recommend.ranking import top

DEPTH = 5
OWN = "learned"
_SHARES = tuple(step / 10 for step in range(1, 10))


def evaluate_tags(folder: Path, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures of every arm; the best mix of own and given tags is chosen on held-out posts of train."""
    train = read_assignments(folder / "assignments_train.csv.gz")
    test = read_assignments(folder / "assignments_test.csv.gz", train)
    # Names that only the test file has are unknown to every arm; they stay gold where they are tags.
    wide = read_assignments(folder / "assignments_train.csv.gz", test)
    past, held = hold_out(wide, seed=seed)
    with program.progress("arms", "step", total=3) as bar:
        share = _best_share(_shares(TagSources(past).scores(held)), held.gold.toarray())
        bar.update()
        learned = PersonalTags.fit(wide, seed=seed)
        bar.update()
        posts = posts_of(test)
        scores = learned.sources.scores(posts)
        arms = {name: scores[name] for name in ("popular", "own", "recent", "given", "people", "alike")}
        shares = _shares(scores)
        arms["own and given, equal shares"] = shares["own"] + shares["given"]
        arms["own and given, best share"] = share * shares["own"] + (1 - share) * shares["given"]
        arms["FolkRank"] = folk_rank(wide, posts)
        arms[OWN] = learned.scores(posts)
        bar.update()
    gold = posts.gold.toarray().astype(bool)
    values = {arm: _values(score, gold) for arm, score in arms.items()}
    return {
        "kind": "tags",
        "num_learned_from": learned.num_learned_from,
        "best_share": share,
        "own": OWN,
        "weights": dict(learned.ranking.weights),
        "sections": {"tags of a person's post": compared(values, OWN, resamples=resamples, seed=seed)},
    }


def _shares(scores: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {name: scores[name] / np.maximum(scores[name].sum(1, keepdims=True), 1) for name in ("own", "given")}


def _best_share(shares: Mapping[str, NDArray[np.float32]], gold: NDArray[Any]) -> float:
    """Return the share of the user's own tags in the mix that has the best recall on these posts."""
    recall = [
        _values(share * shares["own"] + (1 - share) * shares["given"], gold.astype(bool))["recall@5"].mean()
        for share in _SHARES
    ]
    return _SHARES[int(np.argmax(recall))]


def _values(scores: NDArray[np.float32], gold: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    ranked = top(np.ascontiguousarray(scores), 10)
    return metrics.ranking_metrics(metrics.hits_of(ranked, gold), gold.sum(1), recall_at=(DEPTH, 10))
