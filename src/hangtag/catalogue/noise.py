"""Noise in products' texts: for measuring how a tagger bears it, and for training one that bears it better."""

from __future__ import annotations

import random
from collections.abc import Callable

from hangtag.product import Product

TYPO_RATE = 0.05


def map_texts(product: Product, change: Callable[[str], str]) -> Product:
    """Return the product with title, description and attribute values changed; id and tags stay."""
    return product.model_copy(
        update={
            "title": change(product.title),
            "description": change(product.description),
            "attributes": {name: change(value) for name, value in product.attributes.items()},
        }
    )


def with_typos(text: str, generator: random.Random) -> str:
    """Return `text` with 5 % of its letters doubled, dropped or swapped with the next one."""
    letters = list(text)
    position = 0
    while position < len(letters):
        if letters[position].isalpha() and generator.random() < TYPO_RATE:
            kind = generator.choice(("double", "drop", "swap"))
            if kind == "double":
                letters[position] *= 2
            elif kind == "drop":
                letters[position] = ""
            elif position + 1 < len(letters):
                letters[position : position + 2] = letters[position + 1], letters[position]
                position += 1
        position += 1
    return "".join(letters)
