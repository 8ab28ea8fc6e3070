"""What a page shows of a product: text with its evidence marked, tags by facet, near misses, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from hangtag.desk.queue import Entry
from hangtag.encoders.nearest import NearestTexts
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.evidence.fusion import Fusion, WeighedSources
from hangtag.evidence.lexical import LexicalSource
from hangtag.evidence.loading import WEIGHTS
from hangtag.explain.spans import Span, fields_of
from hangtag.explain.words import WordExplainer
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

_NEAR_MISSES = 5
_LEAST_CHANCE = 0.05
_NEIGHBOURS = 3
_MOST_NEIGHBOURS = 5000
"""Labelled products that are compared; of more, every n-th."""
_FOUND_TAGS = 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a field's text and the numbers of the tags that it speaks for."""

    text: str
    tags: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A tag that the page offers: `confidence` in [0, 1] or None; `number` counts the page's choices from 1."""

    tag: str
    facet: str
    confidence: float | None
    is_given: bool
    number: int


@dataclass(slots=True)
class FacetView:
    """A facet's choices on the page, and the most that may be chosen (None: any number)."""

    name: str
    most: int | None
    choices: list[Choice] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProductView:
    """All that the page shows of a product."""

    id: str
    fields: tuple[tuple[str, str, tuple[Segment, ...]], ...]
    """Kind ("title", "description", "attribute"), name and text of each."""
    facets: tuple[FacetView, ...]
    neighbours: tuple[Product, ...]
    status: str


class Viewer:
    """Makes views. Near misses and marks come from words, neighbours from `labelled` products."""

    def __init__(self, vocabulary: TagVocabulary, labelled: Sequence[Product] = ()) -> None:
        """Collect the terms of the vocabulary and the vectors of the labelled products."""
        self.vocabulary = vocabulary
        self._words = WordExplainer(vocabulary)
        fusion = Fusion.read(WEIGHTS / "lexical.json")
        self._sources = WeighedSources(vocabulary, [LexicalSource(vocabulary)], fusion)
        step = max(1, -(-len(labelled) // _MOST_NEIGHBOURS))
        self._labelled = tuple(labelled[::step])
        texts = [product.text for product in self._labelled]
        self._near = NearestTexts(TfidfEncoder(texts), texts) if texts else None
        self._searched = [
            (position, [term.casefold() for term in (tag.tag, *tag.aliases)])
            for position, tag in enumerate(vocabulary)
        ]

    def view(self, entry: Entry, chosen: Sequence[str] | None = None) -> ProductView:
        """Return the view of an entry. `chosen` are the tags that are ticked, where not those of the tagging."""
        given = {tag.tag: tag.confidence for tag in entry.tags}
        chosen = list(given) if chosen is None else list(chosen)
        offered = dict(given)
        offered |= {name: None for name in chosen if name not in offered}
        offered |= self._near_misses(entry.product, offered)
        facets: dict[str, FacetView] = {}
        numbers: dict[str, int] = {}
        # Tags that are ticked come first, so that their keys are the small numbers.
        for name in sorted(offered, key=lambda name: name not in chosen):
            facet = self.vocabulary[name].facet
            shown = facets.setdefault(facet, FacetView(facet, self.vocabulary.facets[facet].max))
            shown.choices.append(Choice(name, facet, offered[name], name in chosen, 0))
        for shown in facets.values():
            for place, choice in enumerate(shown.choices):
                numbers[choice.tag] = len(numbers) + 1
                shown.choices[place] = Choice(
                    choice.tag, choice.facet, choice.confidence, choice.is_given, numbers[choice.tag]
                )
        spans = self._words.explain(entry.product, list(offered))
        return ProductView(
            entry.product.id,
            tuple(_fields(entry.product, spans, numbers)),
            tuple(facets.values()),
            self._neighbours(entry.product),
            entry.status,
        )

    def _near_misses(self, product: Product, offered: Mapping[str, object]) -> dict[str, float]:
        chances = self._sources.probabilities([product])[0]
        found: dict[str, float] = {}
        for position in np.argsort(-chances, kind="stable")[: _NEAR_MISSES + len(offered)]:
            name = self.vocabulary.names[position]
            if name not in offered and chances[position] >= _LEAST_CHANCE and len(found) < _NEAR_MISSES:
                found[name] = float(chances[position])
        return found

    def _neighbours(self, product: Product) -> tuple[Product, ...]:
        if self._near is None:
            return ()
        [positions], _ = self._near.query([product.text], _NEIGHBOURS + 1)
        found = (self._labelled[position] for position in positions)
        return tuple(other for other in found if other.id != product.id)[:_NEIGHBOURS]

    def search(self, text: str) -> list[tuple[str, str]]:
        """Return (tag, facet) of the tags that a typed text may mean: names that begin with it first.

        At most 20; aliases count as names. An empty text finds nothing.
        """
        wanted = text.casefold().strip()
        if not wanted:
            return []
        ranked = []
        for position, terms in self._searched:
            rank = min((_rank(term, wanted) for term in terms), default=9)
            if rank < 9:
                ranked.append((rank, len(terms[0]), position))
        tags = (self.vocabulary.tags[position] for _, _, position in sorted(ranked)[:_FOUND_TAGS])
        return [(tag.tag, tag.facet) for tag in tags]


def _rank(term: str, wanted: str) -> int:
    if term == wanted:
        return 0
    if term.startswith(wanted):
        return 1
    if f" {wanted}" in term:
        return 2
    return 3 if wanted in term else 9


def _fields(
    product: Product, spans: Mapping[str, Sequence[Span]], numbers: Mapping[str, int]
) -> list[tuple[str, str, tuple[Segment, ...]]]:
    marks: dict[str, list[tuple[int, int, int]]] = {}
    for name, found in spans.items():
        for span in found:
            marks.setdefault(span.field, []).append((span.start, span.end, numbers[name]))
    return [
        ("attribute" if "." in name else name, name.partition(".")[2], _segments(text, marks.get(name, [])))
        for name, text in fields_of(product)
        if text
    ]


def _segments(text: str, marks: Sequence[tuple[int, int, int]]) -> tuple[Segment, ...]:
    """Return the text cut wherever a mark begins or ends."""
    cuts = sorted({0, len(text), *(start for start, _, _ in marks), *(end for _, end, _ in marks)})
    return tuple(
        Segment(text[a:b], tuple(sorted({number for start, end, number in marks if start <= a and b <= end})))
        for a, b in pairwise(cuts)
    )
