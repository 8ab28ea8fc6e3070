"""Whether explanations are faithful: does a tag lose more by its top span than by another one of that length?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hangtag.explain.spans import Explainer, Span, fields_of, without
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

LogOdds = Callable[[Sequence[Product]], npt.NDArray[np.floating]]
"""Products to each tag's log-odds, shape (products, tags)."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What tags lose when a span is deleted, in probability; one entry a (product, tag) pair.

    `top` is for the span with the largest contribution, `random` for one of the same number of characters, drawn
    evenly from all places in the product's text. A negative loss is a gain.
    """

    top: npt.NDArray[np.float64]
    random: npt.NDArray[np.float64]


def losses(
    log_odds: LogOdds,
    explainer: Explainer,
    products: Sequence[Product],
    tags: Sequence[Sequence[str]],
    vocabulary: TagVocabulary,
    *,
    seed: int,
) -> Losses:
    """Return what each product's `tags` lose by their top spans, and by random spans.

    Pairs without a span that speaks for the tag, and products that nothing would be left of, are passed over.

    Source: the comprehensiveness of DeYoung et al. (2020), ERASER, with a random span beside it.
    """
    draw = np.random.default_rng(seed)
    columns: list[int] = []
    trios: list[Product] = []
    for product, names in zip(products, tags, strict=True):
        for name, spans in explainer.explain(product, names).items():
            if not spans or spans[0].contribution <= 0:
                continue
            top = spans[0]
            pair = without(product, top.field, top.start, top.end), _without_random(product, top, draw)
            if all(other.title or other.description for other in pair):
                trios += (product, *pair)
                columns.append(vocabulary.position(name))
    if not trios:
        return Losses(np.zeros(0), np.zeros(0))
    odds = np.asarray(log_odds(trios), np.float64)
    own = odds[np.arange(len(trios)), np.repeat(columns, 3)].reshape(-1, 3)
    chances = 0.5 * (1 + np.tanh(0.5 * own))
    return Losses(chances[:, 0] - chances[:, 1], chances[:, 0] - chances[:, 2])


def _without_random(product: Product, like: Span, draw: np.random.Generator) -> Product:
    """Return the product without as many characters as `like` has, at a random place that can hold them."""
    length = like.end - like.start
    places = [(field, start) for field, text in fields_of(product) for start in range(len(text) - length + 1)]
    field, start = places[draw.integers(len(places))]
    return without(product, field, start, start + length)
