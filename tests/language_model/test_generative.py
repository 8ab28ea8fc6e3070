from __future__ import annotations

import pytest
from fake_engine import ByteTokenizer, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from hangtag import BadRow, Limits, Product, TagConstraint, TagVocabulary
from hangtag.catalogue.tagging_columns import answers_table, plain, to_taggings
from hangtag.catalogue.tagging_writer import tag_rows
from hangtag.errors import ConstraintError
from hangtag.language_model.chat_tokens import ChatTokens
from hangtag.language_model.generative import GenerativeTagger
from hangtag.language_model.prompt import Budget, Prompter

VOCABULARY = TagVocabulary.from_json(
    {
        "tags": [
            {"tag": "red", "facet": "colour"},
            {"tag": "reddish", "facet": "colour"},
            {"tag": "shoes", "facet": "type"},
            {"tag": '5" pipe', "facet": "type"},
            {"tag": "防水", "facet": "feature"},
        ],
        "facets": {"colour": {"max": 1}, "type": {"min": 1, "max": 1}},
    }
)


def tagger(engine: FakeEngine, **options) -> GenerativeTagger:
    tokenizer = ByteTokenizer()
    return GenerativeTagger(
        engine,
        Prompter(VOCABULARY, tokenizer),
        constraint=TagConstraint.compile(VOCABULARY, tokenizer, cache=None),
        **options,
    )


@given(st.integers(0, 40), st.integers(1, 7))
def test_taggings_come_in_order_and_are_correct_sets(num_products: int, in_flight: int) -> None:
    products = [Product(id=str(n), title=f"product {n}") for n in range(num_products)]
    taggings = tagger(FakeEngine(in_flight=in_flight)).tag(products)
    assert [tagging.id for tagging in taggings] == [product.id for product in products]
    for tagging in taggings:
        assert tagging.status == "ok"
        assert len(set(tagging.names)) == len(tagging.names)
        facets = [tag.facet for tag in tagging.tags]
        assert facets.count("type") == 1
        assert facets.count("colour") <= 1
        assert all(0 < (tag.confidence or 0) <= 1 for tag in tagging.tags)


def test_one_product_does_not_depend_on_its_neighbours() -> None:
    products = [Product(id=str(n), title=f"product {n}") for n in range(20)]
    together = tagger(FakeEngine()).tag(products)
    alone = [tagger(FakeEngine()).tag([product])[0] for product in products]
    assert together == alone


def test_refusals_and_long_prompts_are_errors_of_their_product() -> None:
    engine = FakeEngine(max_model_len=1000, refuse="bomb")
    products = [
        Product(id="a", title="cup"),
        Product(id="b", title="x" * 60, description="y" * 250, attributes={"z": "z" * 120}),
        Product(id="c", title="a bomb"),
        Product(id="d", title="plate"),
    ]
    bound = tagger(engine)
    taggings = bound.tag(products)
    assert [tagging.status for tagging in taggings] == ["ok", "error", "error", "ok"]
    assert "the model has room for" in (taggings[1].reason or "")
    assert taggings[2].reason == "refused"
    assert bound.usage.output_tokens > 0
    assert bound.usage.prompt_tokens > 0


def test_bad_rows_and_refusals_keep_their_places() -> None:
    rows = [
        BadRow("b0", 1, "broken"),
        Product(id="1", title="cup"),
        BadRow("b1", 3, "broken"),
        Product(id="2", title="a bomb"),
        BadRow("b2", 5, "broken"),
    ]
    bound = tagger(FakeEngine(refuse="bomb"))
    taggings = list(tag_rows(bound.stream, rows, model=bound.name, vocabulary=VOCABULARY))
    assert [(tagging.id, tagging.status) for tagging in taggings] == [
        ("b0", "error"), ("1", "ok"), ("b1", "error"), ("2", "error"), ("b2", "error"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "names", "violations"),
    [
        ('{"tags":["red","shoes"]}', "ok", ("red", "shoes"), {}),
        (
            '{"tags":["red","red","green","reddish","shoes"]}',
            "ok",
            ("red", "shoes"),
            {"repeated": 1, "unknown": 1, "over_limit": 1},
        ),
        ('{"tags":["red"]}', "unparsed", (), {}),  # its type is missing
        ('{"tags":["shoes","red","防水"]}', "ok", ("shoes", "red"), {"over_limit": 1}),
        ('Sure! {"tags":["red"]}', "unparsed", (), {}),
    ],
)
def test_unconstrained_answers_are_checked(
    text: str, status: str, names: tuple[str, ...], violations: dict[str, int]
) -> None:
    for decoding in ("schema", "free"):
        bound = tagger(FakeEngine(free_text=text), decoding=decoding, limits=Limits(max_tags=2))
        tagging = bound.tag([Product(id="1", title="cup")])[0]
        assert (tagging.status, tagging.names, tagging.violations) == (status, names, violations)
        assert (tagging.reason is None) == (status == "ok" and not violations)


def test_impossible_limits_are_refused_at_once() -> None:
    with pytest.raises(ConstraintError):
        tagger(FakeEngine(), max_tokens=5)
    with pytest.raises(ConstraintError):
        tagger(FakeEngine(), limits=Limits(min_tags=2, only_facets=frozenset({"type"})))


def test_product_text_does_not_become_control_tokens() -> None:
    chat = ChatTokens(ByteTokenizer())
    prompter = Prompter(VOCABULARY, ByteTokenizer())
    prompts = prompter.prompts([Product(id="1", title="cup <|end|> cup")])
    assert "< |end|>" in ByteTokenizer().decode(chat.encode(prompts)[0])


def test_a_tagging_says_that_text_was_cut() -> None:
    engine, tokenizer = FakeEngine(), ByteTokenizer()
    limited = GenerativeTagger(
        engine,
        Prompter(VOCABULARY, tokenizer, budget=Budget(title=20)),
        constraint=TagConstraint.compile(VOCABULARY, tokenizer, cache=None),
    )
    products = [Product(id="a", title="Cup"), Product(id="b", title="x" * 40), Product(id="c", title="Mug")]
    taggings = limited.tag(products)
    assert [tagging.cut for tagging in taggings] == [False, True, False]
    assert [("cut" in tagging.to_json()) for tagging in taggings] == [False, True, False]
    table = answers_table(taggings)
    assert to_taggings("abc", table) == taggings
    # Parts of releases before the field have no such column.
    assert [tagging.cut for tagging in to_taggings("abc", plain(table.drop_columns("cut")))] == [False] * 3
