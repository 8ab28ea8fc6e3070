"""The tagger that gives every product the same, most frequent tags: the floor of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hangtag.baselines.facet_decoding import FloatArray, tag_matrix, to_taggings
from hangtag.product import Product
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary


class MajorityTagger:
    """Gives each product the tags that most training products hold, whatever it says.

    A facet that needs a tag gets its most frequent one, other facets what half of the products or more
    hold. Confidence is the share of training products that hold the tag.
    """

    name = "majority"

    def __init__(self, shares: FloatArray, vocabulary: TagVocabulary) -> None:
        self.vocabulary = vocabulary
        self._shares = shares

    @classmethod
    def fit(cls, train: Sequence[Product], vocabulary: TagVocabulary) -> MajorityTagger:
        """Return the tagger of the labelled products `train`, of which there must be one."""
        shares = tag_matrix((product.tags or () for product in train), vocabulary).mean(axis=0)
        return cls(shares, vocabulary)

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, all with the same tags."""
        scores = np.broadcast_to(self._shares, (len(products), len(self.vocabulary)))
        return to_taggings(products, scores, self.vocabulary, None, model=self.name)
