from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hangtag import FacetLimits, Limits, ScoredTag, Tag, Tagging, TagVocabulary
from hangtag.constraint import parse_answer
from hangtag.tagging import Status, to_answer


@pytest.mark.parametrize(
    ("text", "tags", "violations"),
    [
        ('{"tags":["\\ud800","line\\nbreak","red"]}', ("red",), {"unknown": 2}),
        ('{"tags":["red","shoes"]}', ("red", "shoes"), {}),
        (' {"tags" : [ ]}\n', (), {}),
        ('{"tags":["red","red"]}', ("red",), {"repeated": 1}),
        ('{"tags":["Red","green"]}', (), {"unknown": 2}),
        ('{"tags":["red","blue"]}', ("red",), {"over_limit": 1}),
    ],
)
def test_parse_answer_reads_and_repairs(
    vocabulary: TagVocabulary, text: str, tags: tuple[str, ...], violations: dict[str, int]
) -> None:
    limited = vocabulary.with_limits({"colour": FacetLimits(max=1)})
    answer = parse_answer(text, limited)
    assert (answer.tags, answer.violations, answer.reason) == (tags, violations, None)
    assert answer.is_correct_set == (not violations)
    assert (answer.repairs is None) == (not violations)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        '{"tags":["red"',
        '["red"]',
        '{"tags":"red"}',
        '{"tags":[1]}',
        '{"tags":[],"x":1}',
        "[" * 100_000,
        '{"tags":["red"],"tags":["shoes"]}',
    ],
)
def test_parse_answer_reports_what_is_no_answer(vocabulary: TagVocabulary, text: str) -> None:
    answer = parse_answer(text, vocabulary)
    assert answer.reason
    assert answer.tags == ()
    assert not answer.is_correct_set


SHOES = TagVocabulary(
    [Tag("shoes", "type"), Tag("boots", "type", parent="shoes"), Tag("red", "colour"), Tag("blue", "colour")]
)


@pytest.mark.parametrize(
    ("limits", "written", "tags", "reason"),
    [
        (Limits(max_tags=1), ["red", "shoes", "boots"], ("red",), None),
        (Limits(max_tags=0), ["red"], (), None),
        (Limits(only_facets=frozenset({"type"})), ["red", "shoes"], ("shoes",), None),
        (Limits(facets={"colour": FacetLimits(max=1)}), ["red", "blue", "shoes"], ("red", "shoes"), None),
        (Limits(min_tags=2), ["red"], (), "1 more tags"),
        (Limits(min_tags=2), ["red", "red", "green"], (), "1 more tags"),
        (Limits(facets={"type": FacetLimits(min=1)}), ["red"], (), "1 more of 'type'"),
        (Limits(with_parents=True), ["boots"], (), "the parent 'shoes'"),
        (Limits(with_parents=True), ["boots", "shoes"], ("boots", "shoes"), None),
        # The parent does not fit in beside its child.
        (Limits(with_parents=True, max_tags=1), ["boots", "shoes"], (), "the parent 'shoes'"),
        (Limits(with_parents=True, only_facets=frozenset({"colour"})), ["red"], ("red",), None),
    ],
)
def test_parse_answer_keeps_to_the_limits_of_the_request(
    limits: Limits, written: list[str], tags: tuple[str, ...], reason: str | None
) -> None:
    answer = parse_answer(to_answer(written), SHOES, limits)
    assert answer.tags == tags
    assert (answer.reason is None) == (reason is None)
    assert reason is None or reason in str(answer.reason)
    assert answer.is_correct_set == (answer.tags == tuple(written))


# Close to an answer, and nearly always JSON: text drawn at random hardly ever is.
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["red", "green", "", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["tags", "x"]), inner, max_size=2),
    max_leaves=8,
)
_DOCUMENTS = (
    st.dictionaries(st.just("tags"), _VALUES, min_size=1)
    | st.builds(lambda tags: {"tags": tags}, st.lists(_VALUES, max_size=4))
    | st.builds(
        lambda tags: {"tags": tags},
        st.lists(st.sampled_from(["red", "shoes", "green", "\ud800", "a\nb"]), max_size=4),
    )
    | _VALUES
)


@st.composite
def near_answers(draw: st.DrawFn) -> str:
    text = json.dumps(draw(_DOCUMENTS))
    at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
    return (
        text
        if draw(st.booleans())
        else text[:at] + draw(st.text('[]{},:"0e\\u', max_size=3)) + text[at + length :]
    )


@given(near_answers(), st.sampled_from([Limits(), Limits(max_tags=1), Limits(min_tags=1)]))
@example('{"tags":[' + "9" * 5000 + "]}", Limits())
@example('{"tags":["red"],"tags":["green"]}', Limits())
@example('{"tags":NaN}', Limits())
@example('{"tags":["\\ud800"]}', Limits())
@example('{"tags":["a\\nb"]}', Limits())
@example("[" * 100_000, Limits())
def test_parse_answer_never_raises_and_gives_known_tags_only(text: str, limits: Limits) -> None:
    answer = parse_answer(text, TagVocabulary.from_json(["red", "shoes"]), limits)
    assert set(answer.tags) <= {"red", "shoes"}
    assert not (answer.reason and answer.tags)
    assert limits.min_tags == 0 or answer.tags or answer.reason
    # What is said of it goes into files and responses: one line of well-formed text.
    said = f"{answer.reason or ''}{answer.repairs or ''}"
    said.encode()
    assert "\n" not in said


@given(st.lists(st.sampled_from(["red", "blue", "shoes"]), unique=True))
def test_answers_read_back(tags: list[str]) -> None:
    vocabulary = TagVocabulary.from_json(["red", "blue", "shoes"])
    assert parse_answer(to_answer(tags), vocabulary).tags == tuple(tags)


def test_tagging_json_has_the_public_form() -> None:
    tagging = Tagging(
        id="1", tags=(ScoredTag(tag="red", facet="colour", confidence=0.25),), model="m", vocabulary="f"
    )
    assert tagging.to_json() == (
        '{"id":"1","tags":[{"tag":"red","facet":"colour","confidence":0.25}],"status":"ok","model":"m","vocabulary":"f"}'
    )
    with_id = tagging.model_copy(update={"tags": (ScoredTag.of(Tag("red", "colour", id="166"), 0.25),)})
    assert with_id.to_json() == tagging.to_json().replace("0.25}", '0.25,"id":"166"}')
    jsonschema.validate(with_id.model_dump(mode="json"), Tagging.model_json_schema())
    failed = Tagging(id="1", status="error", reason="broken", model="m", vocabulary="f")
    assert '"reason":"broken"' in failed.to_json()
    jsonschema.validate(tagging.model_dump(mode="json"), Tagging.model_json_schema())


def tagging(*confidences: float | None, status: Status = "ok") -> Tagging:
    tags = tuple(ScoredTag(tag=str(n), confidence=confidence) for n, confidence in enumerate(confidences))
    return Tagging(id="1", tags=tags, status=status, model="m", vocabulary="v")


@pytest.mark.parametrize(
    ("given", "is_sure"),
    [
        (tagging(0.5, 0.9), True),
        (tagging(0.49, 0.9), False),
        (tagging(None, 0.9), False),
        (tagging(), False),
        (tagging(status="error"), False),
    ],
)
def test_a_tagging_is_sure_if_every_tag_is(given: Tagging, is_sure: bool) -> None:
    assert given.is_sure(0.5) == is_sure
