"""The regression that weighs evidence against a model, on steps made by a known rule."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hangtag.vocabulary import Tag, TagVocabulary
from sft.fuse import Fitting, Steps, main

COLUMNS = ("lexical.found", "linear.log_odds", "nearest.vote")
VOCABULARY = TagVocabulary([Tag(f"t{number}", "a" if number < 3 else "b") for number in range(6)])
RUN: Any = SimpleNamespace(vocabulary=VOCABULARY)


def made(seed: int, weights: list[float], end: float, *, steps: int = 4000) -> tuple[np.ndarray, Steps]:
    """Scores, and steps whose gold is drawn from the model's logits plus the weighted scores."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(steps, 6, 3)).astype(np.float32)
    logits = draw.normal(0, 2, size=(steps, 7))
    logits[draw.random(logits.shape) < 0.2] = -np.inf
    logits[:, -1] = draw.normal(0, 2, size=steps)
    total = logits.copy()
    total[:, :-1] += scores @ np.array(weights)
    total[:, -1] += end
    gold = (total + draw.gumbel(size=total.shape)).argmax(axis=1)
    return scores, Steps(logits, gold, np.arange(steps))


def test_weights_that_made_the_steps_are_found() -> None:
    scores, steps = made(3, [1.0, -0.5, 2.0], 0.7)
    fitting = Fitting(RUN, COLUMNS, scores)
    weights = fitting.fit(steps)
    fusion = fitting.fusion(weights, {"shop": 4000})
    assert fusion.weights["lexical.found"] == pytest.approx(1.0, abs=0.15)
    for facet in ("a", "b"):
        assert fusion.by_facet[facet]["linear.log_odds"] == pytest.approx(-0.5, abs=0.15)
        assert fusion.by_facet[facet]["nearest.vote"] == pytest.approx(2.0, abs=0.25)
    assert np.log(fusion.threshold / (1 - fusion.threshold)) == pytest.approx(0.7, abs=0.15)
    assert fusion.sharpness == 1
    alone, both = fitting.measure(steps, fitting.nothing), fitting.measure(steps, weights)
    assert both["log_likelihood"] > alone["log_likelihood"]
    assert both["steps_right"] > alone["steps_right"]


def test_evidence_that_says_nothing_gets_next_to_no_weight() -> None:
    scores, steps = made(5, [0.0, 0.0, 0.0], 0.0)
    fusion = Fitting(RUN, COLUMNS, scores).fusion(Fitting(RUN, COLUMNS, scores).fit(steps), {})
    assert max(map(abs, fusion.weights.values())) < 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 2), st.floats(-1, 1))
def test_the_gradient_is_that_of_the_loss(seed: int, model: float, end: float) -> None:
    scores, steps = made(seed, [0.5, 0.5, 0.5], 0.0, steps=20)
    fitting = Fitting(RUN, COLUMNS, scores)
    weights = np.r_[model, end, np.random.default_rng(seed).normal(size=len(fitting.nothing) - 2)]
    loss, gradient = fitting._loss(weights, steps)
    for at in range(len(weights)):
        moved = weights.copy()
        moved[at] += 1e-5
        assert (fitting._loss(moved, steps)[0] - loss) / 1e-5 == pytest.approx(gradient[at], rel=1e-2, abs=1e-2)


def test_steps_of_some_products() -> None:
    steps = Steps(np.zeros((3, 2)), np.array([0, 1, 1]), np.array([0, 1, 1]))
    assert steps.of(np.array([False, True])).gold.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--run", "no"], "no such run directory"), (["--run", "no", "--products", "3"], "--products 3: expected")],
)
def test_misuse_is_one_line(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--data", "data"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert expected in line
