"""The part of a large vocabulary that a prompt lists: the tags nearest to the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.encoders.nearest import NearestTexts


class NearestVocabulary:
    """The tags whose name, aliases and description are nearest; embedded at the first call."""

    def __init__(self, vocabulary: TagVocabulary) -> None:
        self._vocabulary = vocabulary
        self._index: NearestTexts | None = None

    def __call__(self, products: Sequence[Product], k: int) -> list[list[str]]:
        """See `hangtag.language_model.prompt.NearestTags`."""
        from hangtag.encoders.nearest import NearestTexts, default_encoder

        if self._index is None:
            texts = [", ".join([tag.tag, *tag.aliases, tag.description]).rstrip(", ") for tag in self._vocabulary]
            self._index = NearestTexts(default_encoder(texts), texts)
        best, _ = self._index.query([product.text for product in products], k)
        return [[self._vocabulary.names[position] for position in row] for row in best]
