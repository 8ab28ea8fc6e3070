"""Metrics on tables that can be counted by hand, and agreement with scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hangtag import metrics
from hangtag.metrics import Outcomes
from hangtag.vocabulary import Tag, TagVocabulary


def sets(*rows):
    return [None if row is None else frozenset(row.split()) for row in rows]


# Five products: all right, half right, unparsed, empty and right, nothing right.
GOLD = sets("red shoes", "red coat", "blue", "", "green")
PREDICTED = sets("red shoes", "red", None, "", "blue")


@pytest.fixture
def outcomes():
    return Outcomes.from_sets(GOLD, PREDICTED)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.exact_match, 2 / 5),
        # 1, 2*1/(2+1), 0, 1, 0
        (metrics.set_f1, (1 + 2 / 3 + 0 + 1 + 0) / 5),
        (metrics.jaccard, (1 + 1 / 2 + 0 + 1 + 0) / 5),
        # hits: red shoes, red; predicted: 2 + 1 + 0 + 0 + 1; gold: 2 + 2 + 1 + 0 + 1
        (metrics.micro_precision, 3 / 4),
        (metrics.micro_recall, 3 / 6),
        (metrics.micro_f1, 6 / 10),
        # gold tags: red (2 of 2 found), shoes (1 of 1), coat (0), blue (0 of 1; predicted once), green (0)
        (metrics.macro_recall, (1 + 1 + 0 + 0 + 0) / 5),
        (metrics.macro_precision, (1 + 1 + 0 + 0 + 0) / 5),
        (metrics.macro_f1, (1 + 1 + 0 + 0 + 0) / 5),
        # predicted - gold: 0, -1, -1, 0, 0
        (metrics.cardinality_error, 2 / 5),
        (metrics.cardinality_bias, -2 / 5),
        (metrics.validity, 4 / 5),
    ],
)
def test_hand_counted(outcomes, metric, expected):
    assert float(metric(outcomes)) == pytest.approx(expected, abs=1e-15)


def test_a_left_out_tag_is_one_more_wrong_prediction():
    outcomes = Outcomes.from_sets(sets("red shoes"), sets("red shoes"), [1])
    assert float(metrics.exact_match(outcomes)) == 0
    assert float(metrics.set_f1(outcomes)) == 4 / 5
    assert float(metrics.micro_precision(outcomes)) == 2 / 3
    assert float(metrics.jaccard(outcomes)) == 2 / 3
    assert float(metrics.cardinality_error(outcomes)) == 1
    assert float(metrics.validity(outcomes)) == 0


def test_an_unparsed_answer_is_wrong_even_where_gold_is_empty():
    outcomes = Outcomes.from_sets(sets("", ""), sets(None, ""))
    for metric in (metrics.exact_match, metrics.set_f1, metrics.jaccard, metrics.validity):
        assert float(metric(outcomes)) == 0.5
    assert float(metrics.facet_accuracy(outcomes, {"red"})) == 0.5


def test_empty_cases():
    nothing = Outcomes.from_sets(sets(""), sets(""))
    assert float(metrics.micro_f1(nothing)) == 1
    assert float(metrics.micro_precision(nothing)) == 1
    assert float(metrics.micro_recall(nothing)) == 1
    assert math.isnan(metrics.macro_f1(nothing))
    silent = Outcomes.from_sets(sets("red"), sets(""))
    assert float(metrics.micro_precision(silent)) == 0
    spurious = Outcomes.from_sets(sets(""), sets("red"))
    assert float(metrics.micro_recall(spurious)) == 0
    assert math.isnan(metrics.tags_f1(spurious, {"blue"}))


def test_lengths_must_agree_and_products_must_be_there():
    with pytest.raises(ValueError, match="2 gold sets, 1 predictions"):
        Outcomes.from_sets(sets("a", "b"), sets("a"))
    with pytest.raises(ValueError, match="no products"):
        Outcomes.from_sets([], [])


def test_facets():
    outcomes = Outcomes.from_sets(
        sets("red shoes", "red coat", "shoes", "coat"),
        sets("red coat", "red coat", "red shoes", None),
        [0, 3, 0, 0],
    )
    # colour: right, right, one too many, unparsed; left-out tags belong to no facet.
    assert float(metrics.facet_accuracy(outcomes, {"red", "blue"})) == 2 / 4
    assert float(metrics.tags_f1(outcomes, {"red", "blue"})) == 2 * 2 / (3 + 2)
    assert float(metrics.facet_accuracy(outcomes, {"shoes", "coat"})) == 2 / 4
    assert float(metrics.tags_f1(outcomes, {"shoes", "coat"})) == 2 * 2 / (3 + 4)


def test_hierarchy_gives_credit_for_the_right_parent():
    vocabulary = TagVocabulary([Tag("shoes"), Tag("boots", parent="shoes"), Tag("clogs", parent="shoes")])
    outcomes = Outcomes.from_sets(sets("boots", "boots"), sets("clogs", None))
    assert float(metrics.micro_f1(outcomes)) == 0
    # gold {boots, shoes} twice, predicted {clogs, shoes} once: one hit.
    assert float(metrics.hierarchical_f1(outcomes, vocabulary)) == 2 * 1 / (4 + 2)


def test_hierarchy_keeps_tags_that_the_vocabulary_lacks():
    vocabulary = TagVocabulary([Tag("shoes")])
    outcomes = Outcomes.from_sets(sets("hat shoes"), sets("shoes"))
    assert float(metrics.hierarchical_f1(outcomes, vocabulary)) == 2 * 1 / 3


def test_frequency_groups_keep_equal_counts_together():
    groups = metrics.frequency_groups({"a": 40, "b": 40, "c": 40, "d": 1, "e": 1, "f": 0})
    assert groups["head"] == {"a", "b", "c"}
    assert groups["torso"] == set()
    assert groups["tail"] == {"d", "e", "f"}


def test_no_training_counts_make_all_tags_tail():
    assert metrics.frequency_groups({"a": 0, "b": 0})["tail"] == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "expected"), [("", False), ("42 !", False), ("女鞋", True), ("日本 shoe", True), ("Red shoes", False)]
)
def test_chinese(text, expected):
    assert metrics.is_chinese(text) is expected


def test_weights_count_a_product_as_often_as_it_is_repeated(outcomes):
    weights = np.array([[2.0, 0, 1, 0, 2], [1, 1, 1, 1, 1]])
    repeated = [0, 0, 2, 4, 4]
    again = Outcomes.from_sets([GOLD[i] for i in repeated], [PREDICTED[i] for i in repeated])
    for name in ("exact_match", "set_f1", "jaccard", "micro_f1", "micro_precision", "macro_f1", "macro_precision"):
        metric = getattr(metrics, name)
        drawn = metric(outcomes, weights)
        assert drawn.shape == (2,)
        assert drawn[0] == pytest.approx(float(metric(again)), abs=1e-12), name
        assert drawn[1] == pytest.approx(float(metric(outcomes)), abs=1e-12), name


def test_no_weight_at_all_is_no_figure(outcomes):
    for metric in (metrics.set_f1, metrics.micro_f1, metrics.micro_precision, metrics.macro_f1):
        assert np.isnan(metric(outcomes, np.zeros((1, 5)))).all()


TAGS = "abcdefg"
tag_sets = st.frozensets(st.sampled_from(TAGS), max_size=5)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(tag_sets, tag_sets), min_size=1, max_size=12))
def test_scikit_learn_agrees(rows):
    from sklearn import metrics as sk

    gold, predicted = (list(column) for column in zip(*rows, strict=True))
    outcomes = Outcomes.from_sets(gold, predicted)
    true = np.array([[tag in tags for tag in TAGS] for tags in gold], dtype=int)
    guess = np.array([[tag in tags for tag in TAGS] for tags in predicted], dtype=int)

    def agree(metric, expected):
        assert float(metric(outcomes)) == pytest.approx(float(expected), abs=1e-12)

    agree(metrics.exact_match, sk.accuracy_score(true, guess))
    agree(metrics.set_f1, sk.f1_score(true, guess, average="samples", zero_division=1))
    agree(metrics.jaccard, sk.jaccard_score(true, guess, average="samples", zero_division=1))
    empty = 1 if not true.any() and not guess.any() else 0
    agree(metrics.micro_f1, sk.f1_score(true, guess, average="micro", zero_division=empty))
    agree(metrics.micro_precision, sk.precision_score(true, guess, average="micro", zero_division=empty))
    agree(metrics.micro_recall, sk.recall_score(true, guess, average="micro", zero_division=empty))
    held = true.any(axis=0)
    if held.any():
        true, guess = true[:, held], guess[:, held]
        # scikit-learn reads a single column as two classes.
        average = "macro" if true.shape[1] > 1 else "binary"
        for name, theirs in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            agree(getattr(metrics, f"macro_{name}"), theirs(true, guess, average=average, zero_division=0))
