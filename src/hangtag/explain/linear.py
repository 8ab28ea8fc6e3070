"""Spans from the linear tagger: its weights, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hangtag.baselines.linear import LinearTagger
from hangtag.explain.spans import Span, fields_of
from hangtag.product import Product

_WORD = re.compile(r"\S+")


class LinearExplainer:
    """Says what each word of a product adds to the log-odds of the linear tagger; negative words too."""

    def __init__(self, tagger: LinearTagger) -> None:
        """Take a fitted tagger."""
        self._tagger = tagger

    def explain(self, product: Product, names: Sequence[str]) -> dict[str, tuple[Span, ...]]:
        """See `Explainer.explain`.

        Bias, spans and what the names of attributes add sum up to the tagger's log-odds. Words end at spaces.
        """
        adds = self._tagger.attributions(product.text, names)
        spans: list[list[Span]] = [[] for _ in names]
        for field, text, begin in _placed(product):
            for word in _WORD.finditer(text):
                start, end = word.span()
                sums = adds[begin + start : begin + end].sum(axis=0)
                for found, added in zip(spans, sums, strict=True):
                    if added:
                        found.append(Span(field, start, end, word[0], round(float(added), 4), "linear"))
        return {
            name: tuple(sorted(found, key=lambda span: -span.contribution))
            for name, found in zip(names, spans, strict=True)
        }


def _placed(product: Product) -> Iterator[tuple[str, str, int]]:
    """Yield each field, its text as far as it stands in `Product.text`, and where it begins there."""
    at = 0
    for field, text in fields_of(product):
        kind, _, name = field.partition(".")
        before = f"{name}: " if kind == "attributes" else ""
        if not before and not text:
            continue
        part = (before + text).rstrip(".")
        yield field, part[len(before) :], at + len(before)
        at += len(part) + len(". ")
