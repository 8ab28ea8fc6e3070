"""What the evidence adds to logits is that of a distribution over tags and the end, however tags are spelled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from constraint_oracle import byte_tokenizer, constraints, legal_answers, limits_for, reachable, vocabularies
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hangtag.constraint import Evidence, Limits, TagConstraint
from hangtag.errors import ConstraintError
from hangtag.vocabulary import Tag, TagVocabulary

ENOUGH = settings(max_examples=100, deadline=None)
SCORES = st.floats(-8, 8, width=32)


def evidence_for(draw: st.DrawFn, vocabulary: TagVocabulary) -> Evidence:
    return Evidence([draw(SCORES) for _ in vocabulary], draw(SCORES))


def log_share(
    tags: Sequence[str], legal: set[tuple[str, ...]], vocabulary: TagVocabulary, evidence: Evidence
) -> float:
    """The logarithm of an answer's share, worked out tag by tag from all legal answers."""
    score = dict(zip(vocabulary.names, evidence.scores.tolist(), strict=True))
    total = 0.0
    for length in range(len(tags) + 1):
        begun = tuple(tags[:length])
        following = {answer[length] for answer in legal if len(answer) > length and answer[:length] == begun}
        weights = [math.exp(score[tag]) for tag in following]
        if begun in legal:
            weights.append(math.exp(evidence.stop))
        chosen = evidence.stop if length == len(tags) else score[tags[length]]
        total += chosen - math.log(sum(weights))
    return total


@ENOUGH
@given(st.data())
def test_biases_along_a_path_add_up_to_the_answers_share(data: st.DataObject) -> None:
    with_parents = data.draw(st.booleans())
    vocabulary = data.draw(vocabularies(most=4, with_parents=with_parents))
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary, with_parents=with_parents))
    legal = set(legal_answers(vocabulary, limits))
    assume(legal)
    evidence = evidence_for(data.draw, vocabulary)
    for tags in sorted(legal)[:8]:
        state = constraint.start(limits=limits, evidence=evidence)
        total = 0.0
        for token in constraint.encode(tags):
            allowed, bias = constraint.allowed(state), constraint.bias(state)
            if bias is None:
                assert len(allowed) == 1
            else:
                assert len(bias) == len(allowed)
                assert np.exp(bias).sum() == pytest.approx(1)
                total += float(bias[int(allowed.searchsorted(token))])
            constraint.advance(state, token)
        assert state.is_done
        assert total == pytest.approx(log_share(tags, legal, vocabulary, evidence), abs=1e-6)


@ENOUGH
@given(st.data())
def test_evidence_lets_the_same_answers_through(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies(most=4))
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary))
    longest = data.draw(st.none() | st.integers(10, 40))
    evidence = Evidence([data.draw(st.sampled_from([-1e9, -300, 0, 300, 1e9])) for _ in vocabulary])
    try:
        plain = constraint.start(max_tokens=longest, limits=limits)
    except ConstraintError:
        return
    led = constraint.start(max_tokens=longest, limits=limits, evidence=evidence)
    assert reachable(constraint, led) == reachable(constraint, plain)
    while not led.is_done:
        allowed, bias = constraint.allowed(led), constraint.bias(led)
        assert bias is None or np.isfinite(bias).all()
        constraint.advance(led, int(allowed[0 if bias is None else int(bias.argmax())]))


def test_a_fork_keeps_its_evidence(vocabulary: TagVocabulary) -> None:
    constraint = TagConstraint.compile(vocabulary, byte_tokenizer(vocabulary.names, ()), cache=None)
    state = constraint.start(evidence=Evidence(range(5)))
    for token in constraint.forced(state):
        constraint.advance(state, token)
    twin = constraint.fork(state)
    first, second = constraint.bias(state), constraint.bias(twin)
    assert first is not None
    assert second is not None
    assert first.tolist() == second.tolist()
    assert constraint.bias(constraint.start()) is None


def test_greedy_by_evidence_alone_ranks_by_score() -> None:
    vocabulary = TagVocabulary([Tag(name) for name in ("a", "ab", "abc", "b")])
    constraint = TagConstraint.compile(vocabulary, byte_tokenizer(vocabulary.names, ()), cache=None)
    state = constraint.start(limits=Limits(max_tags=4), evidence=Evidence([1.0, -9.0, 3.0, 2.0], stop=0.5))
    ids = []
    while not state.is_done:
        allowed, bias = constraint.allowed(state), constraint.bias(state)
        ids.append(int(allowed[0 if bias is None else int(bias.argmax())]))
        constraint.advance(state, ids[-1])
    # A branch counts for all tags below it: "a", "ab" and "abc" share their first letter.
    assert constraint.decode(ids) == ["abc", "b", "a"]


def test_text_goes_there_and_back() -> None:
    evidence = Evidence([0.1, -3.25, 1000.0], stop=-0.5)
    back = Evidence.from_text(evidence.to_text(), 3)
    assert back.scores.tolist() == evidence.scores.tolist() == pytest.approx([0.1, -3.25, 300.0])
    assert back.stop == -0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("§", "base64"),
        (7, "got 7"),
        ("AAAA", "base64"),
        (Evidence([1.0]).to_text(), "got 2 scores, expected one for"),
    ],
)
def test_what_is_no_evidence_is_refused(text: object, expected: str) -> None:
    with pytest.raises(ConstraintError, match=expected):
        Evidence.from_text(text, 3)


def test_nan_and_other_lengths_are_refused(vocabulary: TagVocabulary) -> None:
    with pytest.raises(ConstraintError, match="NaN"):
        Evidence([math.nan])
    constraint = TagConstraint.compile(vocabulary, byte_tokenizer(vocabulary.names, ()), cache=None)
    with pytest.raises(ConstraintError, match="evidence for 1 tags, expected 5"):
        constraint.start(evidence=Evidence([0.0]))
