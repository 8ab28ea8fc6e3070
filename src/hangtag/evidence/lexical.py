"""Evidence from words: which tags the text names, by their names, aliases and stems, and which it denies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import snowballstemmer

from hangtag.baselines.lexical import Match, TermFinder
from hangtag.evidence.source import Scores, Tree
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

# A find is denied where one of these stands right before it, or two words before ("not fully waterproof").
_DENIALS = frozenset(
    ["no", "not", "non", "without", "never", "ohne", "kein", "keine", "nicht", "sans", "sin", "pas", *"非不无無没"]
)
# Or right after it: "sugar free", "BPA-free".
_DENIALS_AFTER = frozenset(["free"])

_FOUND, _IN_TITLE, _STEM, _OVERLAP, _TITLE_OVERLAP, _CHILD, _CHILD_IN_TITLE, _PARENT, _RIVAL, _DENIED = range(10)


@dataclass(frozen=True, slots=True)
class Find:
    """A tag's name or alias at the words [start, end) of a field; fields count title, description, attributes.

    `column` is the score that it sets: "found", "stem" (with other endings) or "denied".
    """

    tag: str
    field: int
    start: int
    end: int
    column: str


class LexicalSource:
    """What the words of a product say of each tag.

    `found` and `in_title`: the tag or an alias stands in the text, in the title (longest find wins, as in the
    lexical tagger); `stem`: only with other endings; `overlap` and `title_overlap`: the share of the tag's words
    that the text, the title has; `child`, `child_in_title`, `parent`: the same of tags below and above;
    `rival`: another tag of the facet is found, and this one is not; `denied`: found after "no", "without" and
    their like; its words count nothing then. Endings are those of English.
    """

    name = "lexical"
    columns = (
        "found",
        "in_title",
        "stem",
        "overlap",
        "title_overlap",
        "child",
        "child_in_title",
        "parent",
        "rival",
        "denied",
    )

    def __init__(self, vocabulary: TagVocabulary) -> None:
        """Collect the terms of a vocabulary."""
        terms = [(tag.tag, term) for tag in vocabulary for term in (tag.tag, *tag.aliases)]
        self._finder = TermFinder(terms)
        self._stems = TermFinder(terms, _stem)
        self._vocabulary = vocabulary
        self._tree = Tree.of(vocabulary)
        facets = {name: number for number, name in enumerate(vocabulary.facet_names)}
        self._facet_of = np.array([facets[tag.facet] for tag in vocabulary], np.intp)
        # For each stem the terms that have it: (position of the tag, its share of the term's stems).
        self._parts: dict[str, list[tuple[int, int]]] = {}
        self._sizes: list[tuple[int, int]] = []
        for name, term in terms:
            words = set(self._stems.words(term))
            for word in words:
                self._parts.setdefault(word, []).append((vocabulary.position(name), len(self._sizes)))
            self._sizes.append((vocabulary.position(name), len(words)))

    def scores(self, products: Sequence[Product]) -> Scores:
        """See `Source.scores`; each score is between 0 and 1."""
        scores = np.zeros((len(products), len(self._vocabulary), len(self.columns)), np.float32)
        for row, product in zip(scores, products, strict=True):
            self._read(row, product)
        found = scores[:, :, _FOUND]
        scores[:, :, _CHILD] = self._tree.of_children(found)
        scores[:, :, _CHILD_IN_TITLE] = self._tree.of_children(scores[:, :, _IN_TITLE])
        scores[:, :, _PARENT] = self._tree.of_parents(found)
        for facet in range(len(self._vocabulary.facet_names)):
            columns = np.flatnonzero(self._facet_of == facet)
            is_found = found[:, columns].max(axis=1, keepdims=True)
            scores[:, columns, _RIVAL] = is_found * (1 - found[:, columns])
        return scores

    def finds(self, product: Product) -> Iterator[Find]:
        """Yield what is found of the tags, field by field; a stem also where the name itself is found."""
        for number, text in enumerate((product.title, product.description, *product.attributes.values())):
            words = self._finder.words(text)
            for match in self._finder.find(words):
                column = "denied" if _is_denied(words, match) else "found"
                for name in match.names:
                    yield Find(name, number, match.start, match.end, column)
            for match in self._stems.find([_stem(word) for word in words]):
                for name in match.names:
                    yield Find(name, number, match.start, match.end, "stem")

    def _read(self, row: Scores, product: Product) -> None:
        for find in self.finds(product):
            scores = row[self._vocabulary.position(find.tag)]
            scores[self.columns.index(find.column)] = 1
            if find.column == "found" and find.field == 0:
                scores[_IN_TITLE] = 1
        stems = set(self._stems.words(product.title))
        self._overlap(row[:, _TITLE_OVERLAP], stems)
        for text in (product.description, *product.attributes.values()):
            stems.update(self._stems.words(text))
        self._overlap(row[:, _OVERLAP], stems)
        is_denied = (row[:, _DENIED] > 0) & (row[:, _FOUND] == 0)
        row[is_denied, _OVERLAP] = row[is_denied, _TITLE_OVERLAP] = 0
        row[:, _STEM] *= (row[:, _FOUND] == 0) & ~is_denied

    def _overlap(self, shares: Scores, stems: set[str]) -> None:
        """Set each tag's share: that of the one of its terms with the largest."""
        counts: dict[int, int] = {}
        for stem in stems:
            for _, term in self._parts.get(stem, ()):
                counts[term] = counts.get(term, 0) + 1
        for term, count in counts.items():
            tag, size = self._sizes[term]
            shares[tag] = max(shares[tag], count / size)


def _is_denied(words: Sequence[str], match: Match) -> bool:
    before = words[max(0, match.start - 2) : match.start]
    after = words[match.end : match.end + 1]
    return not _DENIALS.isdisjoint(before) or not _DENIALS_AFTER.isdisjoint(after)


@lru_cache(1 << 16)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@lru_cache(1)
def _stemmer() -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer("english")
