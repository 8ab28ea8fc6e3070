from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hangtag import Product
from hangtag.product import normalise_text, row_id


def test_from_row_turns_values_into_text() -> None:
    row = {
        "id": 7,
        "title": "  Cafe\u0301 cup\n",
        "attributes": {"litres": 0.25, "set": True, "sizes": ["S", "M"], "gone": None, "nan": float("nan")},
        "price": 3,
    }
    product = Product.from_row(row, default_id="line-1")
    assert product == Product(
        id="7", title="Café cup", attributes={"litres": "0.25", "set": "True", "sizes": "S, M"}, tags=None
    )


def test_from_row_reads_json_in_columns() -> None:
    row = {"title": "Cup", "attributes": '{"colour": "red"}', "tags": '["red"]', "id": ""}
    product = Product.from_row(row, default_id="line-3")
    assert (product.id, product.attributes, product.tags) == ("line-3", {"colour": "red"}, ("red",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"title": " ", "description": None}, "title and description are both empty"),
        ({}, "title and description are both empty"),
        ({"title": {"en": "Cup"}}, "title: got dict"),
        ({"title": "Cup", "attributes": "red"}, "attributes: got 'red'"),
        ({"title": "Cup", "attributes": ["red"]}, "attributes: got list"),
        ({"title": "Cup", "attributes": {"size": {"eu": 42}}}, "attribute 'size': got dict"),
        ({"title": "Cup", "tags": [1]}, "tags: got [1]"),
        ({"title": "Cup \ud800"}, "title: its text is no well-formed Unicode"),
        ({"title": "Cup", "attributes": {"\udfff": "red"}}, "attribute name: its text is no well-formed Unicode"),
        ({"title": "Cup", "id": "\ud800"}, "id: its text is no well-formed Unicode"),
        ({"title": "Cup", "tags": "[" * 100_000}, "tags: got"),
    ],
)
def test_from_row_refuses(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=".*") as caught:
        Product.from_row(row, default_id="line-1")
    assert message in str(caught.value)


def test_product_is_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        Product(id="1", title="Cup", price=3)  # type: ignore[call-arg]


def test_text_holds_every_field(product: Product) -> None:
    assert product.text == "Trail runner. Light shoe, not waterproof. colour: red. size: 42"


@given(st.text())
def test_normalise_text_is_idempotent_and_clean(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert "\x00" not in once
    assert "\n" not in once
    assert once == once.strip()


IDS = [
    ("a", "a"),
    ("  a  b ", "a b"),
    (2, "2"),
    (12345678.0, "12345678"),
    (4006381333931.0, "4006381333931"),
    (True, "True"),
    (["a", 1], "a, 1"),
    (None, "line-9"),
    ("", "line-9"),
    ("  ", "line-9"),
    (float("nan"), "line-9"),
]


@pytest.mark.parametrize(("given", "expected"), IDS)
def test_a_product_and_a_row_that_is_none_have_one_rule_for_ids(given: object, expected: str) -> None:
    assert Product.from_row({"id": given, "title": "Cup"}, default_id="line-9").id == expected
    assert row_id({"id": given, "title": ""}, default_id="line-9") == expected


@pytest.mark.parametrize(("given", "expected"), [({"a": 1}, "line-9"), ("a\ud800", "a?"), ("\ud800", "?")])
def test_a_row_whose_id_cannot_be_one_is_still_named(given: object, expected: str) -> None:
    with pytest.raises(ValueError, match="id: "):
        Product.from_row({"id": given, "title": "Cup"}, default_id="line-9")
    assert row_id({"id": given}, default_id="line-9") == expected


def test_numbers_keep_their_digits() -> None:
    numbers = {
        "price": 12999.95,
        "ean": 4006381333931.0,
        "weight": 0.25,
        "sum": 0.1 + 0.2,
        "none": float("nan"),
    }
    product = Product.from_row({"title": "Cup", "attributes": numbers}, default_id="1")
    assert product.attributes == {"price": "12999.95", "ean": "4006381333931", "weight": "0.25", "sum": "0.3"}
