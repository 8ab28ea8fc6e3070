"""A tagger without a model: tags drawn from a hash of the product's text. It measures what is around one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

from hangtag.product import Product
from hangtag.tagging import ScoredTag, Tagging
from hangtag.vocabulary import TagVocabulary

_MOST_TAGS = 3
_STEPS = 100
_ANSWERS = 4093


class NullTagger:
    """Gives equal products equal tags, one to three, with confidences from 0.01 to 1; knows nothing of limits."""

    name = "null"

    def __init__(self, vocabulary: TagVocabulary) -> None:
        self.vocabulary = vocabulary
        self._answers: dict[int, tuple[ScoredTag, ...]] = {}

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, in order."""
        return list(self.stream(products))

    def stream(self, products: Iterable[Product]) -> Iterator[Tagging]:
        """Yield one tagging a product, in order."""
        name, fingerprint = self.name, self.vocabulary.fingerprint
        for product in products:
            draw = zlib.crc32(f"{product.title}\n{product.description}".encode()) % _ANSWERS
            tags = self._answers.get(draw)
            if tags is None:
                tags = self._answers[draw] = self._drawn(draw)
            yield Tagging(id=product.id, tags=tags, model=name, vocabulary=fingerprint)

    def _drawn(self, draw: int) -> tuple[ScoredTag, ...]:
        num_tags = len(self.vocabulary)
        positions = {(draw * step) % num_tags: step for step in range(1, 2 + draw % min(_MOST_TAGS, num_tags))}
        chosen = [(self.vocabulary.tags[position], step) for position, step in positions.items()]
        return tuple(ScoredTag.of(tag, (draw * step % _STEPS + 1) / _STEPS) for tag, step in chosen)
