"""The legal answers of tiny vocabularies by enumeration, and random cases to compare them with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations

from hypothesis import strategies as st
from toy_tokenizers import ByteTokenizer, merges_of

from hangtag.constraint import Limits, Spelling, State, TagConstraint
from hangtag.constraint.spelling import CLOSE, EMPTY, OPEN, SEPARATOR
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

NAMES = ("a", "b", "ab", "abc", 'a"', "a\\", "é", "ab c", "ba", "靴", "👟", 'a","b', "]}", "abcd", "n/a")


def is_legal(tags: Sequence[str], vocabulary: TagVocabulary, limits: Limits) -> bool:
    """Whether distinct `tags` obey the limits, written as plainly as can be."""
    facets = vocabulary.facets if limits.facets is None else limits.facets
    only = vocabulary.facet_names if limits.only_facets is None else limits.only_facets
    if len(tags) < limits.min_tags or (limits.max_tags is not None and len(tags) > limits.max_tags):
        return False
    if any(vocabulary[tag].facet not in only for tag in tags):
        return False
    for facet in only:
        number = sum(vocabulary[tag].facet == facet for tag in tags)
        limit = facets.get(facet, FacetLimits())
        if number < limit.min or (limit.max is not None and number > limit.max):
            return False
    parents = [p for tag in tags for p in vocabulary.ancestors(tag) if vocabulary[p].facet in only]
    return not limits.with_parents or set(parents) <= set(tags)


def legal_answers(vocabulary: TagVocabulary, limits: Limits) -> Iterator[tuple[str, ...]]:
    for number in range(len(vocabulary) + 1):
        for tags in permutations(vocabulary.names, number):
            if is_legal(tags, vocabulary, limits):
                yield tags


def reachable(constraint: TagConstraint, state: State) -> set[tuple[int, ...]]:
    """Every answer that the constraint lets through, by walking all ways. Asserts that no way is a dead end."""
    found = set()
    waiting: list[tuple[State, tuple[int, ...]]] = [(state, ())]
    while waiting:
        state, written = waiting.pop()
        allowed = constraint.allowed(state).tolist()
        assert allowed == sorted(set(allowed))
        assert bool(allowed) is not state.is_done, f"dead end after {written}"
        assert state.num_tokens == len(written)
        if state.is_done:
            found.add(written)
        for token in allowed:
            following = constraint.fork(state)
            constraint.advance(following, token)
            waiting.append((following, (*written, token)))
    return found


@st.composite
def vocabularies(draw: st.DrawFn, *, most: int = 5, with_parents: bool = False) -> TagVocabulary:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=most, unique=True))
    num_facets = draw(st.integers(1, 3))
    tags = []
    for number, name in enumerate(names):
        parent = draw(st.sampled_from([None, *names[:number]])) if with_parents else None
        tags.append(Tag(name, f"f{draw(st.integers(0, num_facets - 1))}", parent=parent))
    facets = {}
    for facet in sorted({tag.facet for tag in tags}):
        size = sum(tag.facet == facet for tag in tags)
        least = draw(st.integers(0, min(2, size)))
        facets[facet] = FacetLimits(min=least, max=draw(st.sampled_from([None, least, least + 1])))
    return TagVocabulary(draw(st.permutations(tags)), facets=facets)


@st.composite
def limits_for(draw: st.DrawFn, vocabulary: TagVocabulary, *, with_parents: bool = False) -> Limits:
    least = draw(st.integers(0, 3))
    only = draw(st.none() | st.frozensets(st.sampled_from(vocabulary.facet_names), min_size=1))
    facets = draw(st.none() | st.just({}) | st.just({vocabulary.facet_names[0]: FacetLimits(max=1)}))
    return Limits(
        min_tags=least,
        max_tags=draw(st.none() | st.integers(least, least + 3)),
        facets=facets,
        only_facets=only,
        with_parents=with_parents,
    )


def byte_tokenizer(names: Iterable[str], picks: Sequence[int]) -> ByteTokenizer:
    """A byte-level tokenizer with merges that occur in the answers' pieces."""
    return ByteTokenizer(merges_of([OPEN, EMPTY, SEPARATOR, CLOSE, *names], picks))


@st.composite
def constraints(draw: st.DrawFn, vocabulary: TagVocabulary) -> TagConstraint:
    if draw(st.integers(0, 3)) == 0:
        ids = draw(st.permutations(range(2 * len(vocabulary) + 2)))
        spelling = Spelling.from_tag_tokens(
            open_id=ids[0], close_id=ids[1], first_ids=ids[2::2], later_ids=ids[3::2]
        )
        return TagConstraint.from_spelling(vocabulary, spelling, cache=None)
    picks = draw(st.lists(st.integers(0, 60), max_size=25))
    return TagConstraint.compile(vocabulary, byte_tokenizer(vocabulary.names, picks), cache=None)
