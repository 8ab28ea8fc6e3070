import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hangtag.baselines.facet_decoding import (
    decode_scores,
    exact_match_of,
    facet_columns,
    set_f1_of,
    tag_matrix,
    to_taggings,
    tune_thresholds,
)
from hangtag.product import Product
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary


def vocabulary(**limits: FacetLimits) -> TagVocabulary:
    tags = [Tag("red", "colour"), Tag("boots", "type"), Tag("blue", "colour"), Tag("warm", "")]
    return TagVocabulary(tags, facets=limits)


ONE = FacetLimits(min=1, max=1)
AT_MOST_ONE = FacetLimits(min=0, max=1)


def chosen_names(scores, words, thresholds=None):
    chosen = decode_scores(np.array([scores]), words, thresholds)
    return {words.names[position] for position in np.flatnonzero(chosen[0])}


def test_columns_follow_the_vocabulary():
    assert {facet: list(columns) for facet, columns in facet_columns(vocabulary()).items()} == {
        "colour": [0, 2],
        "type": [1],
        "": [3],
    }


@pytest.mark.parametrize(
    ("colour", "scores", "expected"),
    [
        (ONE, [0.1, 0.9, 0.2, 0.6], {"blue", "boots", "warm"}),
        (AT_MOST_ONE, [0.1, 0.9, 0.2, 0.6], {"boots", "warm"}),
        (AT_MOST_ONE, [0.8, 0.4, 0.9, 0.4], {"blue"}),
        (FacetLimits(), [0.8, 0.4, 0.9, 0.4], {"red", "blue"}),
        (FacetLimits(min=2), [0.1, 0.4, 0.2, 0.4], {"red", "blue"}),
        (ONE, [0.3, 0.5, 0.3, 0.5], {"red", "boots", "warm"}),
    ],
)
def test_decoding_keeps_the_limits(colour, scores, expected):
    assert chosen_names(scores, vocabulary(colour=colour)) == expected


def test_a_threshold_is_of_its_facet_and_is_reached_by_equality():
    words = vocabulary(colour=AT_MOST_ONE)
    assert chosen_names([0.3, 0.3, 0.2, 0.3], words, {"colour": 0.3}) == {"red"}


def test_decoding_refuses_other_shapes():
    with pytest.raises(ValueError, match="expected \\(products, 4\\)"):
        decode_scores(np.zeros((2, 3)), vocabulary())


def test_matrix_leaves_unknown_tags_out():
    assert tag_matrix([["blue", "purple"], []], vocabulary()).tolist() == [
        [False, False, True, False],
        [False] * 4,
    ]


def test_figures_that_can_be_counted():
    gold = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    chosen = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    assert set_f1_of(chosen, gold) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert exact_match_of(chosen, gold) == pytest.approx(1 / 3)


def test_tuning_finds_the_separating_threshold():
    words = vocabulary(colour=AT_MOST_ONE)
    scores = np.array([[0.30, 0.9, 0.0, 0.0], [0.20, 0.9, 0.0, 0.0], [0.0, 0.9, 0.35, 0.0]])
    gold = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    thresholds = tune_thresholds(scores, gold, words)
    assert 0.20 < thresholds["colour"] <= 0.30
    assert thresholds["type"] == 0.5
    assert exact_match_of(decode_scores(scores, words, thresholds), gold) == 1.0


def test_tuning_leaves_the_threshold_of_a_facet_without_choice():
    words = vocabulary(colour=ONE)
    gold = np.array([[1, 0, 0, 0]], dtype=bool)
    assert tune_thresholds(np.array([[0.2, 0.0, 0.1, 0.0]]), gold, words)["colour"] == 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([ONE, AT_MOST_ONE, FacetLimits(), FacetLimits(min=1, max=2)]))
def test_tuning_never_does_worse_than_the_default(seed, colour):
    random = np.random.default_rng(seed)
    words = vocabulary(colour=colour)
    scores, gold = random.random((12, 4)), random.random((12, 4)) < 0.4
    thresholds = tune_thresholds(scores, gold, words)
    tuned = decode_scores(scores, words, thresholds)
    assert set_f1_of(tuned, gold) >= set_f1_of(decode_scores(scores, words), gold) - 1e-9
    for facet in thresholds:
        for other in (0.04, 0.2, 0.36, 0.62, 0.8, 0.96):
            moved = decode_scores(scores, words, thresholds | {facet: other})
            assert set_f1_of(moved, gold) <= set_f1_of(tuned, gold) + 1e-9
    held = tuned[:, [0, 2]].sum(axis=1)
    assert held.min() >= colour.min
    assert colour.max is None or held.max() <= colour.max


def test_taggings_carry_score_facet_and_fingerprint():
    words = vocabulary(colour=ONE)
    products = [Product(id="a", title="x"), Product(id="b", title="y")]
    scores = np.array([[0.7, 0.1, 0.2, 0.9], [0.1, 0.2, 0.3, 0.4]])
    first, second = to_taggings(products, scores, words, None, model="m")
    assert (first.id, first.names, first.tags[0].confidence) == ("a", ("red", "warm"), 0.7)
    assert (second.names, second.tags[0].facet, second.model) == (("blue",), "colour", "m")
    assert second.vocabulary == words.fingerprint
