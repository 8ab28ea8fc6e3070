"""Evidence from meaning: how near a tag's name and description are to the product's text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hangtag.baselines.facet_decoding import facet_columns
from hangtag.encoders.nearest import TextEncoder, default_encoder
from hangtag.evidence.source import Scores, Tree
from hangtag.product import Product
from hangtag.vocabulary import Tag, TagVocabulary

# Divides cosines before the shares of a facet are worked out: what MiniLM's cosines differ by within a facet.
_TEMPERATURE = 0.05


class LabelSource:
    """What the meaning of a product's text says of each tag.

    `name` is the cosine between title and the tag's name, `meaning` that between the whole text and facet,
    name, aliases and description. `name_share` and `meaning_share` are logarithms of shares of the tag's facet
    (a softmax of cosines), 0 for an even one; `name_best`, `meaning_best`: the tag is the nearest of its facet;
    `child_share` and `parent_share`: the largest `meaning_share` below the tag, and that of its parent;
    `facet_size`, `has_child` and `has_parent` say what kind of tag it is. Texts in other scripts than Latin count
    less: the encoder hardly knows them.
    """

    name = "labels"
    columns = (
        "name",
        "name_share",
        "name_best",
        "meaning",
        "meaning_share",
        "meaning_best",
        "child_share",
        "parent_share",
        "facet_size",
        "has_child",
        "has_parent",
    )

    def __init__(self, vocabulary: TagVocabulary, encoder: TextEncoder | None = None) -> None:
        """Embed the tags. `encoder` None stands for `default_encoder`."""
        self._tree = Tree.of(vocabulary)
        self._facets = list(facet_columns(vocabulary).values())
        meanings = [_meaning(tag) for tag in vocabulary]
        self._encoder = encoder or default_encoder(meanings)
        self._names = self._encoder.encode(vocabulary.names)
        self._meanings = self._encoder.encode(meanings)
        constant = np.zeros((len(vocabulary), 3), np.float32)
        for columns in self._facets:
            constant[columns, 0] = np.log(len(columns))
        constant[:, 1] = [bool(below) for below in self._tree.descendants]
        constant[:, 2] = self._tree.parents >= 0
        self._constant = constant

    def scores(self, products: Sequence[Product]) -> Scores:
        """See `Source.scores`. Cost: one forward pass of the encoder over titles and texts."""
        latin = np.array([_latin_share(product.text) for product in products], np.float32)[:, None]
        name = self._encoder.encode([product.title for product in products]) @ self._names.T * latin
        meaning = self._encoder.encode([product.text for product in products]) @ self._meanings.T * latin
        name_share, name_best = self._shares(name)
        meaning_share, meaning_best = self._shares(meaning)
        child, parent = self._tree.of_children(meaning_share), self._tree.of_parents(meaning_share)
        columns = [name, name_share, name_best, meaning, meaning_share, meaning_best, child, parent]
        constant = np.broadcast_to(self._constant, (len(products), *self._constant.shape))
        scores: Scores = np.concatenate((np.stack(columns, axis=2), constant), axis=2, dtype=np.float32)
        return scores

    def _shares(self, cosines: Scores) -> tuple[Scores, Scores]:
        shares, best = np.zeros_like(cosines), np.zeros_like(cosines)
        for columns in self._facets:
            scaled = cosines[:, columns] / _TEMPERATURE
            highest = scaled.max(axis=1, keepdims=True)
            total = np.log(np.exp(scaled - highest).sum(axis=1, keepdims=True))
            shares[:, columns] = scaled - highest - total + np.log(len(columns))
            best[:, columns] = (scaled == highest) & (highest != 0)
        return shares, best


def _meaning(tag: Tag) -> str:
    words = ", ".join([tag.tag, *tag.aliases])
    words = f"{words}: {tag.description}" if tag.description else words
    return f"{tag.facet}: {words}" if tag.facet else words


def _latin_share(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter < "\u0250" for letter in letters) / len(letters) if letters else 0.0
