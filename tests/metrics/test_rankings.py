from __future__ import annotations

import numpy as np
import pytest

from hangtag.metrics import coverage, hits_of, mean_over, novelty, ranking_metrics


def test_figures_a_reader_can_count() -> None:
    gold = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], np.bool_)
    ranked = np.array([[0, 1, 2], [0, 1, 2]])
    found = ranking_metrics(hits_of(ranked, gold), gold.sum(1), recall_at=(2, 3))
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {
            "recall@2": 1 / 2,
            "recall@3": 1,
            "precision@2": 1 / 2,
            "hit@2": 1,
            "map@2": 1 / 2,
            "ndcg@10": (1 + 1 / 2) / (1 + 1 / np.log2(3)),
            "mrr": 1,
        }
    )
    assert all(np.isnan(values[1]) for values in found.values())


def test_means_follow_weights() -> None:
    figure = mean_over(np.array([0.0, 1.0]))
    assert figure(None) == 0.5
    assert figure(np.array([[2.0, 0.0], [0.0, 2.0]])).tolist() == [0, 1]


def test_coverage_and_novelty() -> None:
    ranked = np.array([[0, 1], [0, 1]])
    assert coverage(ranked, 4) == 0.5
    assert novelty(ranked, np.array([0.5, 0.25, 1, 1])) == 1.5
