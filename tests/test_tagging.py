from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hangtag import FacetLimits, ScoredTag, Tagging, TagVocabulary
from hangtag.tagging import Status, parse_answer, to_answer


@pytest.mark.parametrize(
    ("text", "tags", "violations"),
    [
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
    ["", "red", '{"tags":["red"', '["red"]', '{"tags":"red"}', '{"tags":[1]}', '{"tags":[],"x":1}', "[" * 100_000],
)
def test_parse_answer_reports_what_is_no_answer(vocabulary: TagVocabulary, text: str) -> None:
    answer = parse_answer(text, vocabulary)
    assert answer.reason
    assert answer.tags == ()
    assert not answer.is_correct_set


@given(st.text(max_size=50))
def test_parse_answer_never_raises(text: str) -> None:
    parse_answer(text, TagVocabulary.from_json(["red"]))


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
