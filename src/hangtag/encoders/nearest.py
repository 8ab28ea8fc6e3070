"""Which texts are nearest in meaning: for few-shot examples, shortlists of tags and the nearest-product tagger."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hangtag.models import PACKAGED_MODELS

SENTENCE_ENCODER = "minilm-l6"
_QUERY_ROWS = 512


class TextEncoder(Protocol):
    """Anything that turns texts into vectors; `name` says which model does."""

    name: str

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a text, shape (texts, d), rows of length 1."""
        ...


class NearestTexts:
    """Texts that can be asked which of them are nearest to another text."""

    def __init__(self, encoder: TextEncoder, texts: Sequence[str]) -> None:
        """Encode `texts`. Cost: one pass of the encoder over them."""
        self.encoder = encoder
        self.vectors = encoder.encode(texts)

    @classmethod
    def of_vectors(cls, encoder: TextEncoder, vectors: npt.NDArray[np.float32]) -> NearestTexts:
        """Return texts that were encoded before, as their `vectors`."""
        found = cls.__new__(cls)
        found.encoder, found.vectors = encoder, vectors
        return found

    def __len__(self) -> int:
        return len(self.vectors)

    def query(self, texts: Sequence[str], k: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Return positions and cosines of the nearest texts, both of shape (texts, min(k, len(self))).

        Nearest first; of equally near ones the earlier. Exact: every text is compared with every other.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k = {k}; expected 1 or more")
        k = min(k, len(self))
        positions = np.zeros((len(texts), k), dtype=np.intp)
        cosines = np.zeros((len(texts), k), dtype=np.float32)
        if not k or not texts:
            return positions, cosines
        vectors = self.encoder.encode(texts)
        for start in range(0, len(texts), _QUERY_ROWS):
            # Rounded, so that equal texts are equally near however the product was summed up.
            near = np.round(vectors[start : start + _QUERY_ROWS] @ self.vectors.T, 6)
            rows = slice(start, start + len(near))
            positions[rows] = _largest(near, k)
            cosines[rows] = np.take_along_axis(near, positions[rows], axis=1)
        return positions, cosines


def default_encoder_name() -> str:
    """Return which encoder `default_encoder` takes on this machine."""
    has_torch = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return SENTENCE_ENCODER if has_torch and PACKAGED_MODELS[SENTENCE_ENCODER].is_fetched else "tfidf"


def default_encoder(corpus: Sequence[str]) -> TextEncoder:
    """Return MiniLM where its weights are fetched and torch is installed, else TF-IDF fitted on `corpus`."""
    if default_encoder_name() == SENTENCE_ENCODER:
        return _sentence_encoder(str(PACKAGED_MODELS[SENTENCE_ENCODER].folder))
    from hangtag.encoders.tfidf import TfidfEncoder

    return TfidfEncoder(corpus)


@functools.lru_cache(1)
def _sentence_encoder(folder: str) -> TextEncoder:
    """Return the encoder, loaded once for all who ask; `folder` is where its weights are now."""
    from hangtag.encoders.minilm import MiniLmEncoder

    return MiniLmEncoder(SENTENCE_ENCODER)


def _largest(values: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """Return the columns of the k largest values of each row, largest first, equal ones by column."""
    if k < values.shape[1]:
        # All columns that reach the k-th largest value stay in the race, so that ties fall by column.
        bound = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
        ranked = np.where(values >= bound, -values, np.inf)
    else:
        ranked = -values
    order: npt.NDArray[np.intp] = np.argsort(ranked, axis=1, kind="stable")[:, :k]
    return order
