"""The tagger that goes by evidence alone: words and meaning, without a language model."""

from __future__ import annotations

from collections.abc import Sequence

from hangtag.baselines.facet_decoding import to_taggings
from hangtag.evidence.fusion import WeighedSources
from hangtag.product import Product
from hangtag.tagging import Tagging


class EvidenceTagger:
    """Gives a product the tags whose probability reaches the weights' threshold, within the facets' limits."""

    name = "evidence"

    def __init__(self, sources: WeighedSources) -> None:
        """Take sources with their weights."""
        self.vocabulary = sources.vocabulary
        self._sources = sources

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product; a confidence is the probability that the weights give."""
        if not products:
            return []
        thresholds = dict.fromkeys(self.vocabulary.facet_names, self._sources.fusion.threshold)
        return to_taggings(
            products, self._sources.probabilities(products), self.vocabulary, thresholds, model=self.name
        )
