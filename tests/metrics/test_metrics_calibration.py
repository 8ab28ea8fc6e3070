"""Calibration and bootstrap on small tables."""

import functools
import math

import numpy as np
import pytest

from hangtag import metrics
from hangtag.metrics import Confidences, Outcomes


def confidences(*rows):
    """Each row is one product: {tag: confidence}; tags written in capitals are gold."""
    gold = [frozenset(tag for tag in row if tag.isupper()) for row in rows]
    return Confidences.from_scores(gold, list(rows))


def test_reliability_and_error_counted_by_hand():
    held = confidences({"A": 0.9, "b": 0.8}, {"C": 0.4, "d": 0.3})
    bins = metrics.reliability(held, num_bins=2)
    assert [(b.num_tags, b.confidence, b.precision) for b in bins] == [
        (2, pytest.approx(0.35), 0.5),
        (2, pytest.approx(0.85), 0.5),
    ]
    # (2 * |0.5 - 0.85| + 2 * |0.5 - 0.35|) / 4
    assert float(metrics.calibration_error(held, num_bins=2)) == pytest.approx(0.25)


def test_equal_confidences_share_a_bin():
    held = confidences({"A": 0.5, "b": 0.5}, {"C": 0.5, "D": 0.5})
    assert [b.num_tags for b in metrics.reliability(held, num_bins=4)] == [4]
    assert float(metrics.calibration_error(held, num_bins=4)) == pytest.approx(0.25)


def test_coverage_counted_by_hand():
    # Right, right, wrong, right, right: precision 1, 1, 2/3, 3/4, 4/5 going down.
    held = confidences({"A": 0.9, "B": 0.8, "c": 0.7}, {"D": 0.6, "E": 0.5})
    assert float(metrics.coverage_at(held, 0.95)) == 2 / 5
    assert float(metrics.coverage_at(held, 0.80)) == 1
    assert float(metrics.coverage_at(held, 0.75)) == 1
    assert metrics.risk_coverage(held) == [
        (pytest.approx(coverage), pytest.approx(risk))
        for coverage, risk in [(0.2, 0), (0.4, 0), (0.6, 1 / 3), (0.8, 1 / 4), (1, 1 / 5)]
    ]


def test_tags_of_equal_confidence_are_accepted_together():
    held = confidences({"A": 0.9, "b": 0.9}, {"C": 0.1})
    assert float(metrics.coverage_at(held, 0.95)) == 0
    assert metrics.risk_coverage(held) == [(pytest.approx(2 / 3), 0.5), (1, pytest.approx(1 / 3))]


def test_coverage_at_a_decimal_precision_is_not_lost_to_rounding():
    held = confidences(*[{f"T{n}": 0.9} for n in range(19)], {"t": 0.8})
    assert float(metrics.coverage_at(held, 0.95)) == 1


def test_without_confidences_there_is_no_figure():
    held = Confidences.from_scores([frozenset("A")], [None])
    assert math.isnan(metrics.calibration_error(held))
    assert math.isnan(metrics.coverage_at(held, 0.95))
    assert metrics.reliability(held) == []
    assert metrics.risk_coverage(held) == []


def test_weights_repeat_products():
    rows = [{"A": 0.9, "b": 0.8}, {"C": 0.7}, {"d": 0.6, "E": 0.2}]
    weights = np.array([[2.0, 0, 1]])
    repeated = confidences(rows[0], rows[0], rows[2])
    for precision in (0.4, 0.6, 0.95):
        drawn = metrics.coverage_at(confidences(*rows), precision, weights)
        assert drawn == pytest.approx([float(metrics.coverage_at(repeated, precision))])


def test_resamples_are_seeded_and_keep_the_number_of_products():
    first = np.concatenate(list(metrics.resample_weights(7, num_resamples=50, seed=3)))
    again = np.concatenate(list(metrics.resample_weights(7, num_resamples=50, seed=3)))
    other = np.concatenate(list(metrics.resample_weights(7, num_resamples=50, seed=4)))
    assert first.shape == (50, 7)
    assert (first.sum(axis=1) == 7).all()
    assert (first == again).all()
    assert (first != other).any()


def test_interval_of_a_share_is_the_binomial_one():
    hits = [frozenset("a")] * 400
    predicted = [frozenset("a")] * 300 + [frozenset("b")] * 100
    outcomes = Outcomes.from_sets(hits, predicted)
    exact = {"exact": functools.partial(metrics.exact_match, outcomes)}
    found = metrics.resample(exact, 400, num_resamples=4000).estimate("exact")
    assert found.value == 0.75
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found.low == pytest.approx(0.75 - half, abs=0.005)
    assert found.high == pytest.approx(0.75 + half, abs=0.005)


def test_estimate_passes_over_undefined_resamples():
    found = metrics.estimate(0.5, np.array([0.5, np.nan, 0.5]))
    assert (found.low, found.high) == (0.5, 0.5)
    assert math.isnan(metrics.estimate(float("nan"), np.array([0.5])).low)
    assert math.isnan(metrics.difference(0.1, np.array([np.nan])).p)


def test_p_of_a_difference():
    always_above = metrics.difference(0.2, np.full(999, 0.2))
    assert always_above.p == pytest.approx(2 / 1000)
    never_different = metrics.difference(0.0, np.zeros(999))
    assert never_different.p == 1
    one_in_twenty_below = metrics.difference(0.1, np.array([0.1] * 950 + [-0.1] * 49))
    assert one_in_twenty_below.p == pytest.approx(2 * 50 / 1000)


def test_resamples_in_parts_are_those_of_one_piece(monkeypatch):
    generator = np.random.default_rng(0)
    names = [f"t{n}" for n in range(20)]
    rows = [frozenset(generator.choice(names, 6)) for _ in range(50)]
    figures = {"macro": functools.partial(metrics.macro_f1, Outcomes.from_sets(rows, rows[::-1]))}
    whole = metrics.resample(figures, 50, num_resamples=101)
    monkeypatch.setattr("hangtag.metrics.bootstrap._CELLS", 50 * 7)
    parts = metrics.resample(figures, 50, num_resamples=101)
    assert whole.draws["macro"].shape == (101,)
    assert (whole.draws["macro"] == parts.draws["macro"]).all()
    assert metrics.resample(figures, 50).draws["macro"].shape == (1000,)


def test_a_difference_is_paired():
    gold = [frozenset("a")] * 100
    few, more = ([frozenset("a")] * right + [frozenset("b")] * (100 - right) for right in (50, 60))
    one, other = (
        metrics.resample({"exact": functools.partial(metrics.exact_match, Outcomes.from_sets(gold, answers))}, 100)
        for answers in (few, more)
    )
    found = other.exceeds(one)["exact"]
    assert found.value == pytest.approx(0.1)
    # The ten products that differ are all right in one of them, so each resample has it ahead.
    assert 0 < found.low < 0.1 < found.high
    assert one.estimate("exact").high > other.estimate("exact").low
    nothing_shared = metrics.Resampled({"other": 0.5}, {"other": np.array([0.5])})
    assert other.exceeds(nothing_shared) == {}


def test_none_or_all_right_is_not_certainty():
    draws = np.zeros(100)
    # Exact binomial: (1 - p) ** 30 = 0.025
    found = metrics.estimate(0.0, draws, share_of=30)
    assert found.low == 0
    assert (1 - found.high) ** 30 == pytest.approx(0.025)
    found = metrics.estimate(1.0, draws + 1, share_of=30)
    assert found.high == 1
    assert found.low**30 == pytest.approx(0.025)
    assert metrics.estimate(0.0, draws).high == 0
