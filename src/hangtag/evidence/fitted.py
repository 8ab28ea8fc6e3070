"""Evidence that was fitted with a run: its weights, and what its sources learned, in one folder.

    weights.json     the weights (`Fusion`)
    linear.skops     the linear source's TF-IDF, linear.npz its regressions
    nearest.npz      the labelled products' vectors and tags; no text

Nothing in it is unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hangtag.baselines.linear import LinearTagger
from hangtag.encoders.nearest import SENTENCE_ENCODER, NearestTexts, default_encoder, default_encoder_name
from hangtag.errors import DataError
from hangtag.evidence.fusion import Fusion, WeighedSources
from hangtag.evidence.linear import LinearSource
from hangtag.evidence.loading import SOURCES
from hangtag.evidence.nearest import NearestSource
from hangtag.evidence.source import Source
from hangtag.manifest import write_json
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

_WEIGHTS, _LINEAR, _NEAREST = "weights.json", "linear", "nearest.npz"


def fit_sources(
    vocabulary: TagVocabulary, train: Sequence[Product], validation: Sequence[Product]
) -> dict[str, Source]:
    """Return every source, those that learn fitted on `train` (the linear one's penalty chosen on `validation`).

    Raises:
        MissingExtra: scikit-learn is not installed.
        DataError: the encoder is not fetched.
    """
    _check_encoder()
    linear = LinearSource(LinearTagger.fit(train, validation, vocabulary))
    return {"linear": linear} | {name: make(vocabulary, train) for name, make in SOURCES.items()}


def save_evidence(folder: Path, sources: dict[str, Source], fusion: Fusion) -> None:
    """Write what `load_fitted` reads; `folder` is there. Raises MissingExtra: skops is not installed."""
    write_json(folder / _WEIGHTS, fusion.model_dump())
    linear, nearest = sources.get("linear"), sources.get("nearest")
    if isinstance(linear, LinearSource):
        linear.tagger.save(folder / _LINEAR)
    if isinstance(nearest, NearestSource):
        np.savez_compressed(
            folder / _NEAREST, vectors=nearest.texts.vectors, gold=np.packbits(nearest.gold, axis=1)
        )


def load_fitted(folder: Path, vocabulary: TagVocabulary) -> WeighedSources:
    """Return a run's evidence.

    Raises:
        DataError: the folder is damaged, or for another vocabulary, or the encoder is not fetched.
        MissingExtra: skops or scikit-learn is not installed.
    """
    _check_encoder()
    fusion = Fusion.read(folder / _WEIGHTS)
    made: list[Source] = []
    for name in fusion.sources:
        if name == "linear":
            made.append(LinearSource(LinearTagger.load(folder / _LINEAR, vocabulary)))
        elif name == "nearest":
            made.append(_nearest(folder / _NEAREST, vocabulary))
        elif name in SOURCES:
            made.append(SOURCES[name](vocabulary, ()))
        else:
            raise DataError(f"{folder / _WEIGHTS}: evidence {name!r} is unknown")
    return WeighedSources(vocabulary, made, fusion)


def _check_encoder() -> None:
    """Refuse another encoder than the one that vectors and weights are of. Raises DataError: it is not fetched."""
    if default_encoder_name() != SENTENCE_ENCODER:
        raise DataError(f"the encoder is not fetched; run: hangtag model fetch {SENTENCE_ENCODER}")


def _nearest(path: Path, vocabulary: TagVocabulary) -> NearestSource:
    try:
        with np.load(path, allow_pickle=False) as kept:
            vectors = kept["vectors"]
            gold = np.unpackbits(kept["gold"], axis=1, count=len(vocabulary)).astype(bool)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); fit the run's evidence again: python -m sft.fuse") from None
    return NearestSource.of(NearestTexts.of_vectors(default_encoder(()), vectors), gold)
