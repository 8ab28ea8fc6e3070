"""The tagger that finds tags and aliases in the text: what can be had without a model or a label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hangtag.product import Product
from hangtag.tagging import ScoredTag, Tagging
from hangtag.vocabulary import TagVocabulary

# Scripts written without spaces (Han, kana, and their punctuation-free extensions) match character by character,
# so that a term is found inside a run of text; symbols such as emoji stand for themselves.
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    end: int
    length: int
    """Characters of the term, without what separates its words."""
    tags: tuple[str, ...]


class LexicalTagger:
    """Gives a product the tags whose name or alias stands in its text as whole words.

    Case, punctuation and width of characters do not count; Chinese and Japanese terms are found inside
    words. Of overlapping finds the longest wins, then the earlier. A facet with a maximum keeps its earliest
    finds: title before description before attribute values. Facets with a minimum may stay below it. There is
    no confidence. Negation is not understood.
    """

    name = "lexical"

    def __init__(self, vocabulary: TagVocabulary) -> None:
        self.vocabulary = vocabulary
        terms: dict[tuple[str, ...], dict[str, None]] = {}
        for tag in vocabulary.tags:
            for term in (tag.tag, *tag.aliases):
                if words := tuple(_words(term)):
                    terms.setdefault(words, {})[tag.tag] = None
        self._terms = {words: tuple(tags) for words, tags in terms.items()}
        # Which lengths to try from a term's first word on, longest first: most words begin no term.
        lengths: dict[str, set[int]] = {}
        for words in self._terms:
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product; tags stand in the order in which the text names them."""
        return [
            Tagging(
                id=product.id,
                tags=tuple(ScoredTag.of(self.vocabulary[name]) for name in self._find(product)),
                model=self.name,
                vocabulary=self.vocabulary.fingerprint,
            )
            for product in products
        ]

    def _find(self, product: Product) -> list[str]:
        found: dict[str, None] = {}
        held: dict[str, int] = {}
        for field in (product.title, product.description, *product.attributes.values()):
            for match in _without_overlaps(self._matches(_words(field))):
                for name in match.tags:
                    facet = self.vocabulary[name].facet
                    maximum = self.vocabulary.facets[facet].max
                    if name not in found and (maximum is None or held.get(facet, 0) < maximum):
                        found[name] = None
                        held[facet] = held.get(facet, 0) + 1
        return list(found)

    def _matches(self, words: list[str]) -> Iterator[_Match]:
        for start, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                term = tuple(words[start : start + length])
                if tags := self._terms.get(term):
                    yield _Match(start, start + length, sum(map(len, term)), tags)


def _words(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def _without_overlaps(matches: Iterator[_Match]) -> list[_Match]:
    """Return matches that share no word, longest preferred, in the order of the text."""
    kept: list[_Match] = []
    taken: set[int] = set()
    for match in sorted(matches, key=lambda match: (-match.length, match.start)):
        span = range(match.start, match.end)
        if taken.isdisjoint(span):
            taken.update(span)
            kept.append(match)
    return sorted(kept, key=lambda match: match.start)
