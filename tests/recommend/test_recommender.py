from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from recommend_shop import write_shop

from hangtag.errors import DataError
from hangtag.recommend.content import Content
from hangtag.recommend.cut import Cut
from hangtag.recommend.features import is_content
from hangtag.recommend.history import History
from hangtag.recommend.interactions import read_interactions
from hangtag.recommend.items import read_items
from hangtag.recommend.neighbours import cosine_neighbours, ease, largest
from hangtag.recommend.popularity import Popularity
from hangtag.recommend.profile import profile, tag_shares
from hangtag.recommend.ranking import Candidates, Ranking, top
from hangtag.recommend.recommender import Recommender, with_new


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    interactions, items = write_shop(tmp_path_factory.mktemp("shop"))
    known = read_items(items)
    return Recommender.fit(read_interactions(interactions, items=known.ids), known, Cut("time", 7))


def test_customers_get_what_they_like(recommender: Recommender) -> None:
    ranked, scores = recommender.recommend(recommender.history, 10)
    user = np.array([int(name[1:]) for name in recommender.users])
    assert ((ranked % 2) == (user % 2)[:, None]).mean() > 0.95
    assert (np.diff(scores, axis=1) <= 0).all()


def test_favourites_come_first(recommender: Recommender) -> None:
    ranked, _ = recommender.recommend(recommender.history, 3)
    user = np.array([int(name[1:]) for name in recommender.users])
    assert ((user % 2 + 2 * (user % 5))[:, None] == ranked).any(1).mean() > 0.8


def test_without_what_was_taken(recommender: Recommender) -> None:
    ranked, _ = recommender.recommend(recommender.history, 5, with_taken=False)
    taken = recommender.history.taken.toarray()
    assert not np.take_along_axis(taken, ranked, 1).any()


def test_next_tags_follow_the_taste(recommender: Recommender) -> None:
    scores = recommender.next_tags.scores(
        recommender.sources, recommender.history, [recommender.scores(recommender.history)]
    )
    first = [recommender.items.tags[tag] for tag in scores.argmax(1)]
    user = np.array([int(name[1:]) for name in recommender.users])
    wanted = np.where(user % 2, "kitchen", "garden")
    assert (np.array([tag in ("kitchen", "garden") for tag in first])).mean() > 0.9
    assert all(tag == right for tag, right in zip(first, wanted, strict=True) if tag in ("kitchen", "garden"))


def test_a_profile_says_why(recommender: Recommender) -> None:
    row = recommender.users["u0"]
    facets = profile(
        recommender.history[np.array([row])], recommender.items, recommender.sources, strength=2, per_facet=5
    )
    best = facets[""][0]
    held = set(recommender.history.taken[[row]].indices)
    assert best.tag == "garden"
    assert best.lift > 1
    assert best.because
    assert all(recommender.items.ids.index(name) in held for name in best.because)


def test_unknown_customers_get_what_is_popular(recommender: Recommender) -> None:
    size = len(recommender.items)
    empty = sp.csr_matrix((1, size), dtype=np.float32)
    nobody = History(empty, empty, empty, empty, recommender.history.now[:1])
    ranked, scores = recommender.recommend(nobody, 5)
    assert np.isfinite(scores).all()
    assert len(set(ranked[0])) == 5


def test_new_items_get_every_nth_place(recommender: Recommender) -> None:
    ranked = np.array([[0, 1, 2, 3]])
    is_new = np.array([False, False, False, False, True, True])
    scores = np.array([[0, 0, 0, 0, 1, 2]], np.float32)
    assert with_new(ranked, scores, is_new, every=2).tolist() == [[0, 5, 1, 4]]
    assert with_new(ranked, scores, ~is_new & False, every=2).tolist() == ranked.tolist()


def test_nothing_to_learn_from_is_one_line(tmp_path: Path) -> None:
    _, items = write_shop(tmp_path)
    log = tmp_path / "log.csv"
    known = read_items(items)
    for text in ("user,item,day\n", "user,item,day\nu,i1,2024-01-01\n"):
        log.write_text(text)
        with pytest.raises(DataError, match="no user has some on both sides of the cut"):
            Recommender.fit(read_interactions(log, items=known.ids), known, Cut("time", 7))


def test_neighbours_are_what_the_same_people_take() -> None:
    taken = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32))
    near = cosine_neighbours(taken, shrinkage=1).toarray()
    assert near[0, 1] == near[1, 0] > 0
    assert np.count_nonzero(near) == 2


def test_ease_is_the_closed_form() -> None:
    taken = (np.random.default_rng(0).random((30, 6)) < 0.4).astype(np.float32)
    inverse = np.linalg.inv(taken.T @ taken + 2 * np.eye(6))
    wanted = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(wanted, 0)
    found = ease(sp.csr_matrix(taken), penalty=2).toarray()
    assert found == pytest.approx(np.maximum(wanted, 0), abs=1e-4)


def test_largest_keeps_the_largest() -> None:
    rows = sp.csr_matrix(np.array([[3, 1, 2], [0, 5, 0]], np.float32))
    assert largest(rows, 2).toarray().tolist() == [[3, 0, 2], [0, 5, 0]]


def test_popularity_halves(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,day\na,x,2024-01-01\nb,y,2024-01-03\n")
    known = read_interactions(log)
    now = np.full(2, known.day.max())
    popular = Popularity.of(known, 2, half_life=2, now=now)
    assert popular.scores(now)[0].tolist() == [0.5, 1]
    assert Popularity.of(known, 2, half_life=np.inf, now=now).scores(now)[0].tolist() == [1, 1]


def test_ranking_learns_the_better_feature() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((400, 2)).astype(np.float32)
    user = np.repeat(np.arange(100), 4)
    target = np.zeros((100, 4))
    target[np.arange(100), x[:, 0].reshape(100, 4).argmax(1)] = 1
    found = Ranking.fit(Candidates(("good", "noise"), x, user, target.ravel(), np.zeros(400)))
    assert found.weights["good"] > 10 * abs(found.weights["noise"])
    assert found.scores({"good": x[:, :1], "noise": x[:, 1:]}).shape == (400, 1)


def test_a_sampled_candidate_stands_for_those_left_out() -> None:
    # Taken as often as a candidate drawn at 1/10, so ten times as likely as each of the ten it stands for.
    x = np.tile(np.array([[1], [0]], np.float32), (100, 1))
    target = np.tile([1.0, 0.0, 0.0, 1.0], 50)
    offset = np.tile([0.0, np.log(10)], 100)
    found = Ranking.fit(Candidates(("known",), x, np.repeat(np.arange(100), 2), target, offset), penalty=1e-9)
    assert found.weights["known"] == pytest.approx(np.log(10), abs=0.01)


def test_top_is_the_stable_order() -> None:
    scores = np.random.default_rng(0).integers(0, 5, (20, 30)).astype(np.float32)
    assert top(scores, 30).tolist() == np.argsort(-scores, axis=1, kind="stable").tolist()
    assert top(scores, 99).shape == (20, 30)


def test_shares_are_smoothed_to_the_population() -> None:
    population = np.array([[0.5, 0.5]], np.float32)
    none, some = sp.csr_matrix((1, 2)), sp.csr_matrix([[3.0, 0.0]])
    assert tag_shares(none, population, 1).tolist() == [[0.5, 0.5]]
    assert tag_shares(some, population, 1)[0].tolist() == [3.5 / 4, 0.5 / 4]


def test_content_features_know_nothing_of_takings() -> None:
    assert all(map(is_content, ("tags log", "popular alike", "latest alike x size")))
    assert not any(map(is_content, ("popular 1", "neighbours", "latest neighbours log", "taken", "age")))


@pytest.mark.parametrize("num_columns", [20, 700])
def test_content_neighbours_are_the_nearest(num_columns: int) -> None:
    held = sp.random(30, num_columns, density=0.3, random_state=0, format="csr", dtype=np.float32)
    content = Content.of(held)
    cosine = (content.vectors @ content.vectors.T).toarray()
    np.fill_diagonal(cosine, 0)
    found = content.neighbours(5).toarray()
    assert np.sort(found, 1)[:, -5:] == pytest.approx(np.sort(cosine, 1)[:, -5:], abs=1e-6)
    assert np.diag(found).tolist() == [0] * 30
