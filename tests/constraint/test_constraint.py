from __future__ import annotations

import json
import random
from itertools import permutations, product

import jsonschema
import numpy as np
import pytest
from constraint_oracle import (
    NAMES,
    byte_tokenizer,
    constraints,
    is_legal,
    legal_answers,
    limits_for,
    reachable,
    vocabularies,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hangtag.constraint import Limits, TagConstraint, answer_schema, parse_answer
from hangtag.errors import ConstraintError
from hangtag.tagging import to_answer
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

ENOUGH = settings(max_examples=100, deadline=None)
NO_LIMITS = Limits()


def compiled(vocabulary: TagVocabulary, picks: tuple[int, ...] = ()) -> TagConstraint:
    return TagConstraint.compile(vocabulary, byte_tokenizer(vocabulary.names[:50], picks), cache=None)


def walk(constraint: TagConstraint, text: str, limits: Limits = NO_LIMITS) -> bool:
    """Whether the bytes of `text` are a whole answer."""
    state = constraint.start(limits=limits)
    for byte in text.encode():
        if byte not in constraint.allowed(state):
            return False
        constraint.advance(state, byte)
    return state.is_done


@ENOUGH
@given(st.data())
def test_exactly_the_legal_answers_that_fit_are_reachable(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies())
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary))
    legal = {tuple(constraint.encode(tags)) for tags in legal_answers(vocabulary, limits)}
    lengths = sorted({len(ids) for ids in legal})
    max_tokens = data.draw(
        st.none() | st.sampled_from([length + d for length in lengths for d in (-1, 0, 1)] or [9])
    )
    fitting = {ids for ids in legal if max_tokens is None or len(ids) <= max_tokens}
    if not fitting:
        with pytest.raises(ConstraintError):
            constraint.start(max_tokens=max_tokens, limits=limits)
        return
    assert reachable(constraint, constraint.start(max_tokens=max_tokens, limits=limits)) == fitting


@ENOUGH
@given(st.data())
def test_accepts_what_schema_uniqueness_and_limits_accept(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies(most=3))
    limits = data.draw(limits_for(vocabulary))
    constraint = compiled(vocabulary)
    try:
        schema = answer_schema(vocabulary, limits)
    except ConstraintError:
        with pytest.raises(ConstraintError):
            constraint.start(limits=limits)
        return
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    accepted = set()
    for number in range(5):
        for tags in product(vocabulary.names, repeat=number):
            violations = parse_answer(to_answer(tags), vocabulary, limits).violations
            if validator.is_valid({"tags": list(tags)}) and not violations:
                accepted.add(to_answer(tags))
            if not violations:
                assert validator.is_valid({"tags": list(tags)})
                assert len(set(tags)) == len(tags)
                assert is_legal(tags, vocabulary, limits)
    texts = {bytes(ids).decode() for ids in reachable(constraint, constraint.start(limits=limits))}
    assert texts == accepted


@ENOUGH
@given(st.data(), st.integers(0, 2**32))
def test_random_walks_close_in_time_with_a_correct_set(data: st.DataObject, seed: int) -> None:
    vocabulary = data.draw(vocabularies(most=len(NAMES)))
    constraint = data.draw(constraints(vocabulary))
    limits = data.draw(limits_for(vocabulary))
    max_tokens = data.draw(st.integers(8, 60))
    try:
        state = constraint.start(max_tokens=max_tokens, limits=limits)
    except ConstraintError:
        assume(False)
    rng = np.random.default_rng(seed)
    written = []
    while not state.is_done:
        allowed = constraint.allowed(state)
        logits = rng.gumbel(size=len(allowed))
        written.append(int(allowed[logits.argmax()]))
        constraint.advance(state, written[-1])
    assert len(written) <= max_tokens
    assert state.remaining == max_tokens - len(written)
    tags = constraint.decode(written)
    assert [vocabulary.names[position] for position in state.tags] == tags
    assert is_legal(tags, vocabulary, limits)
    assert constraint.encode(tags) == written
    assert not constraint.allowed(state).size


@ENOUGH
@given(st.data())
def test_a_fork_and_a_refused_token_leave_the_state_alone(data: st.DataObject) -> None:
    vocabulary = data.draw(vocabularies())
    constraint = data.draw(constraints(vocabulary))
    state = constraint.start(limits=Limits(facets={}))
    while not state.is_done:
        allowed = constraint.allowed(state).tolist()
        for token in allowed:
            constraint.advance(constraint.fork(state), token)
        refused = next(token for token in range(-1, 2**20) if token not in allowed)
        with pytest.raises(ConstraintError, match=f"token {refused} is not allowed"):
            constraint.advance(state, refused)
        assert constraint.allowed(state).tolist() == allowed
        forced = constraint.forced(state)
        assert bool(forced) == (len(allowed) == 1)
        assert constraint.allowed(state).tolist() == allowed
        for token in forced or [data.draw(st.sampled_from(allowed))]:
            assert token in constraint.allowed(state)
            constraint.advance(state, token)
        assert not forced or len(constraint.allowed(state)) != 1


SHOP = TagVocabulary(
    [
        Tag("red", "colour"),
        Tag("blue", "colour"),
        Tag("shoe", "type"),
        Tag("shoes", "type"),
        Tag('5" wide', "fit"),
    ],
    facets={"colour": FacetLimits(max=1)},
)
ANY = TagVocabulary([Tag(name) for name in ("wine", "wine red", "back\\slash", "靴", "👟", "naïve", 'a","b')])


@pytest.mark.parametrize(
    ("vocabulary", "text", "is_accepted"),
    [
        (SHOP, '{"tags":[]}', True),
        (SHOP, '{"tags":["red"]}', True),
        (SHOP, '{"tags":["red","shoe","shoes"]}', True),
        (SHOP, '{"tags":["shoes","shoe"]}', True),
        (SHOP, '{"tags":["shoe","shoe"]}', False),
        (SHOP, '{"tags":["red","blue"]}', False),
        (SHOP, '{"tags":["shoe","red","shoe"]}', False),
        (SHOP, '{"tags":["5\\" wide"]}', True),
        (SHOP, '{"tags":["5" wide"]}', False),
        (SHOP, '{"tags":["green"]}', False),
        (SHOP, '{"tags":["re"]}', False),
        (SHOP, '{"tags":["red"', False),
        (SHOP, '{"tags":["red",]}', False),
        (SHOP, '{"tags": ["red"]}', False),
        (SHOP, '{"tags":["red"]} ', False),
        (SHOP, "[]", False),
        (ANY, '{"tags":["wine","wine red"]}', True),
        (ANY, '{"tags":["wine red","wine"]}', True),
        (ANY, '{"tags":["wine","wine"]}', False),
        (ANY, '{"tags":["back\\\\slash","靴","👟","naïve"]}', True),
        (ANY, '{"tags":["back\\slash"]}', False),
        (ANY, '{"tags":["\\u9774"]}', False),
        (ANY, '{"tags":["a\\",\\"b"]}', True),
        (ANY, '{"tags":["a","b"]}', False),
    ],
)
def test_table(vocabulary: TagVocabulary, text: str, is_accepted: bool) -> None:
    assert walk(compiled(vocabulary), text) is is_accepted


def test_remaining_slots_are_kept_for_facets_in_need() -> None:
    vocabulary = TagVocabulary(
        [Tag("a", "x"), Tag("b", "y"), Tag("c", "z"), Tag("d", "z")],
        facets={"x": FacetLimits(min=1), "y": FacetLimits(min=1)},
    )
    constraint = compiled(vocabulary)
    assert not walk(constraint, '{"tags":["c","a"]}', Limits(max_tags=2))
    assert walk(constraint, '{"tags":["b","a"]}', Limits(max_tags=2))
    state = constraint.start(limits=Limits(max_tags=3))
    for byte in b'{"tags":["c':
        constraint.advance(state, byte)
    assert bytes(constraint.forced(state)) == b'","'
    for byte in b'","':
        constraint.advance(state, byte)
    assert bytes(constraint.allowed(state).tolist()) == b"ab"


def test_tight_budgets_leave_room_for_what_is_owed() -> None:
    vocabulary = TagVocabulary(
        [Tag("long colour", "colour"), Tag("red", "colour"), Tag("size"), Tag("zip")],
        facets={"colour": FacetLimits(min=1)},
    )
    constraint = compiled(vocabulary)
    exact = len('{"tags":["zip","red"]}')
    for spare, starts in ((-1, b"r"), (0, b"rz"), (1, b"rsz"), (7, b"lrsz")):
        state = constraint.start(max_tokens=exact + spare)
        for token in b'{"tags":["':
            constraint.advance(state, token)
        assert bytes(constraint.allowed(state).tolist()) == starts
    with pytest.raises(ConstraintError, match="the shortest end takes"):
        constraint.start(max_tokens=len('{"tags":["red"]}') - 1)


def test_prefix_counts_no_tokens() -> None:
    constraint = compiled(SHOP)
    prefix = constraint.forced(constraint.start())
    assert bytes(prefix) == b'{"tags":['
    length = len(b'"red"]}')
    state = constraint.start(max_tokens=length, prefix=prefix)
    assert (state.num_tokens, state.remaining) == (0, length)
    for byte in b'"red"]}':
        constraint.advance(state, byte)
    assert state.is_done
    assert state.remaining == 0
    with pytest.raises(ConstraintError):
        constraint.start(prefix=list(b'{"x'))


def test_forced_is_the_whole_opening_when_a_tag_must_come() -> None:
    constraint = compiled(SHOP)
    assert bytes(constraint.forced(constraint.start(limits=Limits(min_tags=1)))) == b'{"tags":["'
    one = compiled(TagVocabulary([Tag("only")]))
    whole = one.forced(one.start(limits=Limits(min_tags=1)))
    assert bytes(whole) == b'{"tags":["only"]}'


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(min_tags=6), "admit only 4 tags"),
        (Limits(facets={"size": FacetLimits(max=1)}), "facet 'size' is not in the vocabulary"),
        (Limits(only_facets=frozenset({"size"})), "facet 'size' is not in the vocabulary"),
        (Limits(facets={"fit": FacetLimits(min=2)}), "it has 1 tags"),
        (Limits(max_tags=1, facets={"fit": FacetLimits(min=1), "type": FacetLimits(min=1)}), "ask for 2 tags"),
    ],
)
def test_impossible_limits_are_refused(limits: Limits, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        compiled(SHOP).start(limits=limits)
    with pytest.raises(ConstraintError, match=message):
        answer_schema(SHOP, limits)


def test_limits_refuse_nonsense() -> None:
    with pytest.raises(ConstraintError, match="min_tags: got -1"):
        Limits(min_tags=-1)
    with pytest.raises(ConstraintError, match="max_tags: got 1"):
        Limits(min_tags=2, max_tags=1)


def test_a_large_vocabulary_keeps_its_promises() -> None:
    draw = random.Random(7)
    letters = "abcdefgh"
    names = sorted({"".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(20_000)})
    vocabulary = TagVocabulary(
        [Tag(name, f"f{len(name) % 4}") for name in names],
        facets={"f0": FacetLimits(max=1), "f1": FacetLimits(min=2, max=3), "f2": FacetLimits(max=2)},
    )
    constraint = compiled(vocabulary, tuple(draw.choices(range(60), k=40)))
    limits = Limits(min_tags=3, max_tags=12)
    for budget in [30, 45, 60, 100, 1000] * 8:
        state = constraint.start(max_tokens=budget, limits=limits)
        written = []
        while not state.is_done:
            written.append(int(draw.choice(constraint.allowed(state))))
            constraint.advance(state, written[-1])
        assert len(written) <= budget
        tags = constraint.decode(written)
        assert is_legal(tags, vocabulary, limits)
        assert len(set(tags)) == len(tags)


def test_every_order_is_reachable_whatever_was_decoded_before() -> None:
    # Bases are shared between answers: one answer must not leave traces in another.
    constraint = compiled(SHOP)
    for _ in range(2):
        for tags in permutations(("red", "shoe", "shoes", '5" wide')):
            assert walk(constraint, json.dumps({"tags": tags}, separators=(",", ":")))
