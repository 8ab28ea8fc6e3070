from __future__ import annotations

import random
from itertools import product

import pytest
from constraint_oracle import (
    byte_tokenizer,
    constraints,
    is_legal,
    legal_answers,
    limits_for,
    reachable,
    vocabularies,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hangtag.constraint import Limits, TagConstraint, parse_answer
from hangtag.errors import ConstraintError
from hangtag.tagging import to_answer
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

ENOUGH = settings(max_examples=100, deadline=None)

SHOES = TagVocabulary(
    [
        Tag("shoes", "type"),
        Tag("boots", "type", parent="shoes"),
        Tag("chelsea boots", "type", parent="boots"),
        Tag("hats", "type"),
        Tag("red", "colour"),
    ]
)


def texts(vocabulary: TagVocabulary, limits: Limits, max_tokens: int | None = None) -> set[str]:
    constraint = TagConstraint.compile(vocabulary, byte_tokenizer((), ()), cache=None)
    state = constraint.start(max_tokens=max_tokens, limits=limits)
    return {bytes(ids).decode() for ids in reachable(constraint, state)}


@ENOUGH
@given(st.data())
def test_exactly_the_closed_sets_are_reachable(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies(with_parents=True))
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary, with_parents=True))
    legal = {tuple(constraint.encode(tags)) for tags in legal_answers(vocabulary, limits)}
    if not legal:
        with pytest.raises(ConstraintError):
            constraint.start(limits=limits)
        return
    assert reachable(constraint, constraint.start(limits=limits)) == legal


@ENOUGH
@given(st.data())
def test_what_reads_answers_accepts_exactly_those_of_the_constraint(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies(most=4, with_parents=True))
    limits = data.draw(limits_for(vocabulary, with_parents=data.draw(st.booleans())))
    try:
        written = texts(vocabulary, limits)
    except ConstraintError:
        written = set()
    names = [*vocabulary.names, "unknown"]
    asked = [to_answer(tags) for number in range(5) for tags in product(names, repeat=number)]
    assert written == {text for text in asked if parse_answer(text, vocabulary, limits).is_correct_set}


@ENOUGH
@given(st.data())
def test_tight_budgets_close_with_closed_sets(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies(with_parents=True))
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary, with_parents=True))
    legal = {tuple(constraint.encode(tags)) for tags in legal_answers(vocabulary, limits)}
    max_tokens = data.draw(st.sampled_from(sorted({len(ids) for ids in legal}) or [9]))
    try:
        found = reachable(constraint, constraint.start(max_tokens=max_tokens, limits=limits))
    except ConstraintError:
        return
    assert found <= {ids for ids in legal if len(ids) <= max_tokens}


def test_a_child_keeps_room_for_its_parents() -> None:
    limits = Limits(max_tags=2, with_parents=True)
    found = texts(SHOES, limits)
    assert '{"tags":["boots","shoes"]}' in found
    assert '{"tags":["shoes","boots"]}' in found
    assert not any("chelsea" in text for text in found)
    assert '{"tags":["boots"]}' not in found


def test_missing_parents_are_forced_before_the_end() -> None:
    constraint = TagConstraint.compile(SHOES, byte_tokenizer((), ()), cache=None)
    state = constraint.start(limits=Limits(max_tags=3, with_parents=True))
    for byte in b'{"tags":["chelsea boots':
        constraint.advance(state, byte)
    for byte in b'","':
        assert constraint.allowed(state).tolist() == [byte]
        constraint.advance(state, byte)
    assert bytes(constraint.allowed(state).tolist()) == b"bs"


def test_parents_of_other_facets_count_only_where_their_facet_is_admitted() -> None:
    vocabulary = TagVocabulary([Tag("women", "department"), Tag("skirt", "type", parent="women")])
    assert texts(vocabulary, Limits(with_parents=True, only_facets=frozenset({"type"}))) == {
        '{"tags":[]}',
        '{"tags":["skirt"]}',
    }
    closed = {"department": FacetLimits(max=0)}
    assert texts(vocabulary, Limits(with_parents=True, facets=closed)) == {'{"tags":[]}'}


def test_a_required_exclusive_facet_of_parents_cuts_nothing_off() -> None:
    vocabulary = TagVocabulary(
        [
            Tag("men", "department"),
            Tag("women", "department"),
            Tag("skirt", "type", parent="women"),
            Tag("tie", "type", parent="men"),
        ],
        facets={"department": FacetLimits(min=1, max=1), "type": FacetLimits(min=1, max=1)},
    )
    assert texts(vocabulary, Limits(with_parents=True)) == {
        f'{{"tags":["{one}","{other}"]}}'
        for pair in (("men", "tie"), ("women", "skirt"))
        for one, other in (pair, pair[::-1])
    }


def test_walks_in_a_large_hierarchy_close_in_time() -> None:
    draw = random.Random(3)
    tags: list[Tag] = []
    for number in range(3000):
        parent = draw.choice(tags) if number > 20 else None
        facet = parent.facet if parent and draw.random() < 0.9 else f"f{number % 3}"
        tags.append(Tag(f"tag {number}", facet, parent=parent.tag if parent else None))
    vocabulary = TagVocabulary(tags, facets={"f0": FacetLimits(min=1, max=4), "f1": FacetLimits(max=3)})
    constraint = TagConstraint.compile(vocabulary, byte_tokenizer((), ()), cache=None)
    limits = Limits(min_tags=2, max_tags=10, with_parents=True)
    for budget in [45, 60, 90, 150, 1000] * 4:
        state = constraint.start(max_tokens=budget, limits=limits)
        written = []
        while not state.is_done:
            written.append(int(draw.choice(constraint.allowed(state))))
            constraint.advance(state, written[-1])
        found = constraint.decode(written)
        assert len(written) <= budget
        assert is_legal(found, vocabulary, limits)
        assert parse_answer(to_answer(found), vocabulary, limits).is_correct_set


def test_missing_parents_are_counted() -> None:
    limits = Limits(with_parents=True)
    assert parse_answer(to_answer(["chelsea boots", "red"]), SHOES, limits).violations == {"missing_parents": 2}
    assert parse_answer(to_answer(["chelsea boots", "red"]), SHOES, Limits()).violations == {}
