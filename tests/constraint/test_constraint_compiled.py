from __future__ import annotations

import math
import multiprocessing
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from constraint_oracle import byte_tokenizer, reachable
from toy_tokenizers import TAG_WORDS, ByteTokenizer, WordTokenizer

from hangtag.constraint import Limits, Spelling, TagConstraint, answer_schema, parse_answer
from hangtag.constraint.spelling import CLOSE, OPEN
from hangtag.errors import ConstraintError
from hangtag.tagging import to_answer
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

VOCABULARY = TagVocabulary(
    [Tag(name, f"f{number % 2}") for number, name in enumerate(TAG_WORDS[:-1])]
    + [Tag("b", "f1", parent="a/b", aliases=("bee",))],
    facets={"f0": FacetLimits(min=0, max=2)},
)


class CountingTokenizer(ByteTokenizer):
    num_calls = 0

    def encode(self, texts):  # type: ignore[no-untyped-def]
        type(self).num_calls += 1
        return super().encode(texts)


@pytest.fixture
def constraint() -> TagConstraint:
    return TagConstraint.compile(VOCABULARY, byte_tokenizer(TAG_WORDS, range(10)), cache=None)


def test_encode_and_decode_are_inverse(constraint: TagConstraint) -> None:
    for tags in ([], ["red"], list(TAG_WORDS), list(TAG_WORDS)[::-1]):
        assert constraint.decode(constraint.encode(tags)) == tags


@pytest.mark.parametrize(
    ("tags", "message"), [(["green"], "'green' is not in the vocabulary"), (["b", "b"], "'b' is repeated")]
)
def test_encode_refuses(constraint: TagConstraint, tags: list[str], message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        constraint.encode(tags)


def test_decode_refuses_what_is_no_whole_answer(constraint: TagConstraint) -> None:
    ids = constraint.encode(["red", "b"])
    for broken in ([], ids[:-1], [*ids, 0], ids[1:], constraint.empty[:-1], ids[:-3] + ids[-2:]):
        with pytest.raises(ConstraintError, match="not a whole answer"):
            constraint.decode(broken)
    twice = constraint.encode(["red"])[: -len(constraint.close)]
    later = constraint.encode(["b", "red"])[len(constraint.encode(["b"])) - len(constraint.close) :]
    with pytest.raises(ConstraintError, match="'red' is repeated"):
        constraint.decode(twice + later)


def test_confidences_are_products_of_a_tag_and_the_way_to_it(constraint: TagConstraint) -> None:
    ids = constraint.encode(["red", "b"])
    logprobs = [math.log(0.5 + 0.4 * (n % 2)) for n in range(len(ids))]
    scored = constraint.score(ids, logprobs)
    assert scored.tags == ("red", "b")
    ends = [len(constraint.encode(tags)) - len(constraint.close) for tags in (["red"], ["red", "b"])]
    bounds = [0, *ends, len(ids)]
    parts = [math.exp(sum(logprobs[a:b])) for a, b in pairwise(bounds)]
    assert [*scored.confidences, scored.stop] == pytest.approx(parts)
    prefix = constraint.forced(constraint.start())
    rest = constraint.score(ids[len(prefix) :], logprobs[len(prefix) :], prefix=prefix)
    assert rest.confidences[0] == pytest.approx(math.exp(sum(logprobs[len(prefix) : ends[0]])))
    assert rest.confidences[1:] == scored.confidences[1:]


def test_an_empty_answer_has_only_a_stop(constraint: TagConstraint) -> None:
    scored = constraint.score(constraint.empty, [math.log(0.5)] * len(constraint.empty))
    assert scored.tags == ()
    assert scored.stop == pytest.approx(0.5 ** len(constraint.empty))
    with pytest.raises(ConstraintError, match="2 log-probabilities"):
        constraint.score(constraint.empty, [0.0, 0.0])


def test_answer_probabilities_sum_to_one() -> None:
    vocabulary = TagVocabulary([Tag("a"), Tag("ab"), Tag("b")])
    constraint = TagConstraint.compile(vocabulary, ByteTokenizer(), cache=None)
    total = 0.0
    for ids in reachable(constraint, constraint.start()):
        state, logprobs = constraint.start(), []
        for token in ids:
            logprobs.append(-math.log(len(constraint.allowed(state))))
            constraint.advance(state, token)
        scored = constraint.score(ids, logprobs)
        assert math.prod(scored.confidences) * scored.stop == pytest.approx(math.exp(sum(logprobs)))
        total += math.exp(sum(logprobs))
    assert total == pytest.approx(1.0)


def test_stop_token_ends_answers_and_nothing_else() -> None:
    constraint = TagConstraint.compile(TagVocabulary([Tag("a")]), ByteTokenizer(), cache=None)
    assert constraint.stop_token == ord("}")
    braced = TagConstraint.compile(TagVocabulary([Tag("a}")]), ByteTokenizer(), cache=None)
    assert braced.stop_token is None


def test_tag_tokens_are_one_step_each() -> None:
    vocabulary = TagVocabulary([Tag("boots"), Tag("red", "colour"), Tag("blue", "colour")])
    vocabulary = vocabulary.with_limits({"colour": FacetLimits(max=1)})
    spelling = Spelling.from_tag_tokens(open_id=90, close_id=91, first_ids=[7, 5, 6], later_ids=[17, 15, 16])
    constraint = TagConstraint.from_spelling(vocabulary, spelling, cache=None)
    assert constraint.encode(["red", "boots"]) == [90, 5, 17, 91]
    state = constraint.start()
    for token, allowed in ((90, [90]), (5, [5, 6, 7, 91]), (17, [17, 91]), (91, [91])):
        assert constraint.allowed(state).tolist() == allowed
        constraint.advance(state, token)
    assert state.is_done
    assert constraint.decode([90, 91]) == []
    assert constraint.stop_token == 91
    scored = constraint.score([90, 5, 17, 91], [0.0, math.log(0.5), math.log(0.25), -0.0])
    assert scored.confidences == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        (Spelling([1], [1, 2], [], [2], [[3], [3]]), "have the same tokens"),
        (Spelling([1], [1, 2], [], [2], [[3], []]), "'b' has no tokens"),
        (Spelling([1], [1, 2], [], [2], [[3], [3, 4]], [[4], [5, 6]]), "continues a tag and follows one"),
        (Spelling([1], [1, 2], [5], [2], [[3], [3, 2]]), "continues a tag and follows one"),
        (Spelling([1], [1, 3], [5], [2], [[3], [4]]), "also begin a tag"),
        (Spelling([1], [1, 9], [], [2], [[3], [4]], [[2], [5]]), "also begin a tag"),
        (Spelling([1], [1, 2], [], [2], [[3], [4]], [[5], [6, 7]]), "expected equally many"),
        (Spelling([1], [1, 2], [], [2], [[3]]), "for 2 tags"),
    ],
)
def test_ambiguous_spellings_are_refused(spelling: Spelling, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        TagConstraint.from_spelling(TagVocabulary([Tag("a"), Tag("b")]), spelling, cache=None)


def test_pieces_are_tokenised_apart() -> None:
    # With merges across pieces, the whole answer in one go would have fewer tokens.
    whole = '{"tags":["red","b"]}'
    tokenizer = byte_tokenizer([whole], [5, 3, 8, 1, 9, 2, 2, 7] * 3)
    constraint = TagConstraint.compile(VOCABULARY, tokenizer, cache=None)
    ids = constraint.encode(["red", "b"])
    assert tokenizer.decode(ids) == whole
    assert ids != tokenizer.encode([whole])[0]
    assert ids == list(chain.from_iterable(tokenizer.encode([OPEN, "red", '","', "b", CLOSE])))


def test_a_tokenizer_that_loses_characters_is_refused() -> None:
    with pytest.raises(ConstraintError, match="cannot spell JSON"):
        TagConstraint.compile(VOCABULARY, WordTokenizer(), cache=None)

    class Lossy(ByteTokenizer):
        def decode(self, ids):  # type: ignore[no-untyped-def]
            return super().decode(ids).replace("é", "e")

    with pytest.raises(ConstraintError, match="cannot spell the tag 'café'"):
        TagConstraint.compile(VOCABULARY, Lossy(), cache=None)


def test_cache_is_used_and_equal(tmp_path: Path) -> None:
    tokenizer = CountingTokenizer()
    CountingTokenizer.num_calls = 0
    compiled = TagConstraint.compile(VOCABULARY, tokenizer, cache=tmp_path)
    calls = CountingTokenizer.num_calls
    cached = TagConstraint.compile(VOCABULARY, tokenizer, cache=tmp_path)
    assert CountingTokenizer.num_calls == calls
    assert cached.digest == compiled.digest
    assert cached.path == compiled.path
    loaded = TagConstraint.load(compiled.path or "")
    assert loaded.names == list(VOCABULARY.names)
    assert loaded.vocabulary["b"].parent == "a/b"
    assert loaded.vocabulary.facets == VOCABULARY.facets
    limits = Limits(max_tags=2)
    one, other = (reachable(c, c.start(limits=limits)) for c in (compiled, loaded))
    assert one == other
    assert [file.suffix for file in tmp_path.iterdir()] == [".constraint"]


def test_cache_tells_vocabularies_and_tokenizers_apart(tmp_path: Path) -> None:
    digests = {
        TagConstraint.compile(vocabulary, tokenizer, cache=tmp_path).digest
        for vocabulary in (
            VOCABULARY,
            VOCABULARY.with_limits({}),
            TagVocabulary(VOCABULARY.tags[::-1]),
            TagVocabulary([Tag(tag.tag) for tag in VOCABULARY.tags]),
        )
        for tokenizer in (ByteTokenizer(), byte_tokenizer(TAG_WORDS, [3]))
    }
    assert len(digests) == 8
    described = TagVocabulary(
        [Tag(tag.tag, tag.facet, tag.parent, description="new") for tag in VOCABULARY.tags],
        facets=VOCABULARY.facets,
    )
    assert TagConstraint.compile(described, ByteTokenizer(), cache=tmp_path).digest in digests


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "old"])
def test_a_damaged_cache_is_compiled_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    compiled = TagConstraint.compile(VOCABULARY, ByteTokenizer(), cache=tmp_path)
    path = compiled.path
    assert path is not None
    data = path.read_bytes()
    broken = {
        "empty": b"",
        "cut": data[:-100],
        "flipped": data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
        "foreign": b"\x93NUMPY" + data,
        "old": data.replace(b'"format": 1', b'"format": 0'),
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(ConstraintError):
        TagConstraint.load(path)
    again = TagConstraint.compile(VOCABULARY, ByteTokenizer(), cache=tmp_path)
    assert "again" in caplog.text
    assert path.read_bytes() == data
    assert again.decode(again.encode(["red"])) == ["red"]


def test_load_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path))
    compiled = TagConstraint.compile(VOCABULARY, ByteTokenizer())
    assert compiled.path is not None
    assert compiled.path.parent == tmp_path / "constraints"
    assert TagConstraint.load(compiled.digest).names == compiled.names
    with pytest.raises(ConstraintError, match="cannot be read"):
        TagConstraint.load("0" * 64)


def test_an_unwritable_cache_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    constraint = TagConstraint.compile(VOCABULARY, ByteTokenizer(), cache=tmp_path / "file" / "below")
    assert constraint.path is None
    assert "not cached" in caplog.text


def _compile_into(folder: Path) -> str:
    vocabulary = TagVocabulary([Tag(f"tag number {number}") for number in range(3000)])
    constraint = TagConstraint.compile(vocabulary, ByteTokenizer(), cache=folder)
    assert constraint.path is not None
    return TagConstraint.load(constraint.path).digest


def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.map(_compile_into, [tmp_path] * 4, chunksize=1)
    assert len(set(digests)) == 1
    assert [file.stem for file in tmp_path.iterdir()] == digests[:1]


def test_allowed_is_int32_and_sorted(constraint: TagConstraint) -> None:
    state = constraint.start()
    while not state.is_done:
        allowed = constraint.allowed(state)
        assert allowed.dtype == np.int32
        assert (np.diff(allowed) > 0).all()
        constraint.advance(state, int(allowed[-1]))
    assert constraint.allowed(state).dtype == np.int32


def test_schema_of_closed_facets_and_counts() -> None:
    schema = answer_schema(VOCABULARY, Limits(min_tags=1, only_facets=frozenset({"f0"})))
    tags = schema["properties"]["tags"]
    assert tags["items"]["enum"] == [tag.tag for tag in VOCABULARY.tags if tag.facet == "f0"]
    assert (tags["minItems"], tags["maxItems"], tags["uniqueItems"]) == (1, 2, True)
    closed = Limits(facets={"f0": FacetLimits(max=0), "f1": FacetLimits(max=0)})
    assert "enum" not in answer_schema(VOCABULARY, closed)["properties"]["tags"]["items"]


@pytest.mark.parametrize(
    ("tags", "limits", "violations"),
    [
        (["red", "b"], Limits(), {}),
        (["red", "red", "green"], Limits(), {"unknown": 1, "repeated": 1}),
        (["green", "green"], Limits(), {"unknown": 2}),
        (["red", "navy blue", "back\\slash"], Limits(facets={"f0": FacetLimits(max=1)}), {"over_limit": 1}),
        (["red", "b", "blue"], Limits(max_tags=2), {"over_limit": 1}),
        (["red"], Limits(only_facets=frozenset({"f1"})), {"over_limit": 1}),
        (["red"], Limits(min_tags=3), {"under_limit": 2}),
        (["red"], Limits(facets={"f1": FacetLimits(min=2)}), {"under_limit": 2}),
    ],
)
def test_violations_by_hand(tags: list[str], limits: Limits, violations: dict[str, int]) -> None:
    answer = parse_answer(to_answer(tags), VOCABULARY, limits)
    assert answer.violations == violations
    assert (answer.reason is not None) == ("under_limit" in violations)
