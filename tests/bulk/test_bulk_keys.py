"""Keys, what they tell apart, and which taggings outlive a change of the vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hangtag import Product, TagVocabulary
from hangtag.bulk.keys import RowKeys, changed_tags, context_digest
from hangtag.product import ProductFields

VALUE = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=3),
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUE,
        "title": VALUE,
        "description": VALUE,
        "attributes": st.one_of(VALUE, st.dictionaries(st.text(max_size=5), VALUE, max_size=3)),
        "tags": st.one_of(VALUE, st.lists(st.text(max_size=4), max_size=3)),
        "other": VALUE,
    },
)


@given(ROW)
def test_the_fast_way_reads_what_product_reads(row: dict[str, Any]) -> None:
    try:
        product = Product.from_row(row, default_id="line-1")
    except ValueError:
        with pytest.raises(ValueError, match=".*"):
            fields = ProductFields.from_row(row, default_id="line-1")
            RowKeys("00" * 32)(fields)
            fields.id.encode()
        return
    fields = ProductFields.from_row(row, default_id="line-1")
    assert Product(**fields._asdict()) == product


def test_keys_tell_content_and_context_apart() -> None:
    one = ProductFields("1", "Red", "Shoes", {"size": "4", "fit": "2"})
    others = [
        one._replace(title="Red Shoes", description=""),
        one._replace(attributes={"size": "42"}),
        one._replace(attributes={"fit": "2", "size": "4"}),
        one._replace(description="Shoes size 4"),
    ]
    keys = RowKeys("00" * 32)
    assert keys(one) == keys(one._replace(id="2", tags=("red",)))
    assert len({keys(fields) for fields in [one, *others]}) == 5
    assert RowKeys("01" * 32)(one) != keys(one)
    assert context_digest({"a": 1, "b": [2]}) != context_digest({"a": 1, "b": [3]})


def words(*tags: str | dict[str, Any]) -> TagVocabulary:
    return TagVocabulary.from_json(list(tags))


def named(tag: str, number: int) -> dict[str, Any]:
    return {"tag": tag, "id": number}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (words("red", "blue"), words("red", "blue"), set()),
        (words("red", "blue"), words("red", "navy"), {"blue"}),
        (words("red", "blue", "shoes"), words("red", "shoes"), {"blue"}),
        (words("red", "blue"), words("red", "blue", "green"), None),
        (words("red", "blue"), words("blue", "red"), None),
        (words("red", "blue"), words("red", {"tag": "blue", "description": "as the sea"}), None),
        (words("red", "blue"), words("red", {"tag": "blue", "facet": "colour"}), None),
        (words("red", "blue"), words("red", {"tag": "blue", "aliases": ["navy"]}), None),
        (words("red", "blue", "tan"), words("red", {"tag": "navy", "aliases": ["blue"]}), {"blue", "tan"}),
        (
            words("shoes", {"tag": "boots", "parent": "shoes"}),
            words("shoe", {"tag": "boots", "parent": "shoe"}),
            {"shoes"},
        ),
        (words("red", "blue"), words("red", {"tag": "navy", "facet": "colour"}), None),
        (words("red", "blue", "tan"), words("red", "navy"), None),
        (words("red", named("blue", 7), "tan"), words("red", named("navy", 7)), {"blue", "tan"}),
        (words("red", named("blue", 7)), words("red", named("blue", 8)), {"blue"}),
        (words("red", named("blue", 7)), words("red", named("navy", 8)), {"blue"}),
        (words("red", "blue"), words("red", named("blue", 7)), {"blue"}),
        (words(named("red", 1), named("blue", 2)), words(named("blue", 1), named("red", 2)), {"red", "blue"}),
        (words(named("red", 1), named("blue", 2)), words(named("navy", 2), named("red", 1)), None),
        (words(named("red", 1), "blue"), words(named("red", 1), "blue", named("tan", 2)), None),
        (words({"tag": "red", "labels": {"fr": "rouge"}}), words("red"), set()),
    ],
)  # fmt: skip
def test_changed_tags(old: TagVocabulary, new: TagVocabulary, expected: set[str] | None) -> None:
    assert changed_tags(old, new) == (None if expected is None else frozenset(expected))
