"""From weights and labelled products to evidence that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hangtag.encoders.nearest import SENTENCE_ENCODER, default_encoder_name
from hangtag.errors import DataError
from hangtag.evidence.fusion import Fusion, WeighedSources
from hangtag.evidence.source import Source
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

WEIGHTS = Path(__file__).with_name("weights")
"""Weights for catalogues nobody has fitted any for; `python -m sft.default_evidence` wrote them."""


def default_fusion(*, has_examples: bool) -> Fusion:
    """Return the weights for a catalogue without, or with, labelled products.

    Words alone count where no encoder is fetched: the other weights were fitted with its cosines.
    """
    if default_encoder_name() != SENTENCE_ENCODER:
        return Fusion.read(WEIGHTS / "lexical.json")
    return Fusion.read(WEIGHTS / ("lexical_labels_nearest.json" if has_examples else "lexical_labels.json"))


def load_evidence(fusion: Fusion, vocabulary: TagVocabulary, examples: Sequence[Product] = ()) -> WeighedSources:
    """Return the sources that have a weight, fitted on `examples` where they learn.

    Raises:
        DataError: a source is unknown, or learns and there is nothing to learn from.
        MissingExtra: a source's library is not installed.
    """
    for name in fusion.sources:
        if name not in SOURCES:
            raise DataError(f"evidence {name!r} is unknown; expected some of {', '.join(SOURCES)}")
        if name in LEARNING and not examples:
            raise DataError(f"evidence {name!r} learns from labelled products; give --examples F")
    return WeighedSources(vocabulary, [SOURCES[name](vocabulary, examples) for name in fusion.sources], fusion)


def _lexical(vocabulary: TagVocabulary, examples: Sequence[Product]) -> Source:
    from hangtag.evidence.lexical import LexicalSource

    return LexicalSource(vocabulary)


def _labels(vocabulary: TagVocabulary, examples: Sequence[Product]) -> Source:
    from hangtag.evidence.labels import LabelSource

    return LabelSource(vocabulary)


def _nearest(vocabulary: TagVocabulary, examples: Sequence[Product]) -> Source:
    from hangtag.evidence.nearest import NearestSource

    return NearestSource(vocabulary, examples)


SOURCES: dict[str, Callable[[TagVocabulary, Sequence[Product]], Source]] = {
    "lexical": _lexical,
    "labels": _labels,
    "nearest": _nearest,
}
"""What makes each source, by its name."""
LEARNING = frozenset({"nearest"})
"""Those that need labelled products."""
