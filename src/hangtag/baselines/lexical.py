"""The tagger that finds tags and aliases in the text: what can be had without a model or a label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hangtag.product import Product
from hangtag.tagging import ScoredTag, Tagging
from hangtag.vocabulary import TagVocabulary

# Scripts written without spaces (Han, kana, and their punctuation-free extensions) match character by character,
# so that a term is found inside a run of text; symbols such as emoji stand for themselves.
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")


@dataclass(frozen=True, slots=True)
class Match:
    """A term at the words [start, end) of a text, and the names behind it."""

    start: int
    end: int
    length: int
    """Characters of the term, without what separates its words."""
    names: tuple[str, ...]


class TermFinder:
    """Finds terms, each of one or more words, in texts; several names may stand behind one term."""

    def __init__(self, terms: Iterable[tuple[str, str]], key: Callable[[str], str] = str) -> None:
        """Keep (name, term) pairs; words are compared by `key`, such as their stem."""
        self._key = key
        found: dict[tuple[str, ...], dict[str, None]] = {}
        for name, term in terms:
            if words := tuple(self.words(term)):
                found.setdefault(words, {})[name] = None
        self._terms = {words: tuple(names) for words, names in found.items()}
        # Which lengths to try from a term's first word on, longest first: most words begin no term.
        lengths: dict[str, set[int]] = {}
        for words in self._terms:
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: sorted(sizes, reverse=True) for word, sizes in lengths.items()}

    def words(self, text: str) -> list[str]:
        """Return the keys of a text's words, in order."""
        return [self._key(word) for word in words_of(text)]

    def find(self, words: Sequence[str]) -> list[Match]:
        """Return the finds in the order of the text; they share no word: the longest wins, then the earlier."""
        kept: list[Match] = []
        taken: set[int] = set()
        for match in sorted(self._all(words), key=lambda match: (-match.length, match.start)):
            span = range(match.start, match.end)
            if taken.isdisjoint(span):
                taken.update(span)
                kept.append(match)
        return sorted(kept, key=lambda match: match.start)

    def _all(self, words: Sequence[str]) -> Iterator[Match]:
        for start, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                term = tuple(words[start : start + length])
                if names := self._terms.get(term):
                    # At the end of the text fewer words than asked for may be a shorter term.
                    yield Match(start, start + len(term), sum(map(len, term)), names)


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
        names = ((tag.tag, term) for tag in vocabulary for term in (tag.tag, *tag.aliases))
        self._finder = TermFinder(names)

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
            for match in self._finder.find(words_of(field)):
                for name in match.names:
                    facet = self.vocabulary[name].facet
                    maximum = self.vocabulary.facets[facet].max
                    if name not in found and (maximum is None or held.get(facet, 0) < maximum):
                        found[name] = None
                        held[facet] = held.get(facet, 0) + 1
        return list(found)


def words_of(text: str) -> list[str]:
    """Return a text's words, folded; Chinese and Japanese character by character, emoji each by itself."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """Return a text's words as `words_of` does, each with where it stands in `text`: (word, start, end).

    Folded character by character: only half-width sound marks, which fold together with the character before
    them, give other words than `words_of`.
    """
    folded: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        part = unicodedata.normalize("NFKC", character).casefold()
        folded.append(part)
        places += [place] * len(part)
    return [
        (match[0], places[match.start()], places[match.end() - 1] + 1)
        for match in _TOKEN.finditer("".join(folded))
    ]
