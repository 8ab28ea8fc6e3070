"""Spans of a product's text: where they stand, what they add to a tag, and the product without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hangtag.product import Product, normalise_text

TITLE, DESCRIPTION, ATTRIBUTES = "title", "description", "attributes."
Kind = Literal["name", "stem", "denied", "below", "linear"]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of one field of a product; `contribution` is what they add to a tag's log-odds.

    `field` is "title", "description" or "attributes.NAME". `kind` says how it was found: the tag's name or an
    alias, with other endings, denied ("not waterproof"), the name of a tag below it, or a linear tagger's weights.
    """

    field: str
    start: int
    end: int
    text: str
    contribution: float
    kind: Kind


class Explainer(Protocol):
    """Anything that says which spans speak for a tag."""

    def explain(self, product: Product, names: Sequence[str]) -> dict[str, tuple[Span, ...]]:
        """Return the spans of each tag named, the largest contribution first."""
        ...


def fields_of(product: Product) -> list[tuple[str, str]]:
    """Return a product's fields with their texts: title, description, then each attribute's value."""
    attributes = [(ATTRIBUTES + name, value) for name, value in product.attributes.items()]
    return [(TITLE, product.title), (DESCRIPTION, product.description), *attributes]


def without(product: Product, field: str, start: int, end: int) -> Product:
    """Return a product whose field lacks the characters [start, end). Raises KeyError: it has no such field."""
    text = dict(fields_of(product))[field]
    left = normalise_text(f"{text[:start]} {text[end:]}")
    if field.startswith(ATTRIBUTES):
        attributes = product.attributes | {field.removeprefix(ATTRIBUTES): left}
        return product.model_copy(
            update={"attributes": {name: value for name, value in attributes.items() if value}}
        )
    return product.model_copy(update={field: left})
