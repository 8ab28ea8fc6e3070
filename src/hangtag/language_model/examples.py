"""Labelled products beside a prompt: which are shown, how many, and what they say of the limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hangtag.constraint import Limits
from hangtag.errors import DataError
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    pass


DEFAULT_SHOTS = 4
DEFAULT_MAX_TAGS = 8


def default_limits(
    vocabulary: TagVocabulary,
    examples: Sequence[Product] = (),
    *,
    min_tags: int = 0,
    max_tags: int | None = None,
    with_parents: bool = False,
) -> Limits:
    """Return limits of an answer; `max_tags` None allows as many tags as the largest example holds, 8 without
    examples, and never fewer than the facets' minima need."""
    if max_tags is None:
        most = max((len(example.tags or ()) for example in examples), default=DEFAULT_MAX_TAGS)
        max_tags = max(most, min_tags, sum(limit.min for limit in vocabulary.facets.values()), 1)
    return Limits(min_tags=min_tags, max_tags=max_tags, with_parents=with_parents)


def default_shots(examples: Sequence[Product]) -> int:
    """Return the number of examples in a prompt where nobody says one."""
    return min(DEFAULT_SHOTS, len(examples))


def check_examples(examples: Sequence[Product], vocabulary: TagVocabulary) -> None:
    """Refuse labelled products whose tags are not in the vocabulary. Raises DataError: names the first one."""
    for example in examples:
        unknown = [tag for tag in example.tags or () if tag not in vocabulary]
        if unknown:
            raise DataError(f"example {example.id!r} has the tag {unknown[0]!r}, which is not in the vocabulary")


class NearestLabelled:
    """The labelled products whose text is nearest; embedded at the first call."""

    def __init__(self, examples: Sequence[Product]) -> None:
        from hangtag.encoders.nearest import NearestTexts, default_encoder

        self._examples = examples
        texts = [example.text for example in examples]
        self._index = NearestTexts(default_encoder(texts), texts)

    def __call__(self, products: Sequence[Product], k: int) -> list[list[Product]]:
        """See `hangtag.language_model.prompt.NearestExamples`."""
        best, _ = self._index.query([product.text for product in products], k)
        return [[self._examples[position] for position in row] for row in best]
