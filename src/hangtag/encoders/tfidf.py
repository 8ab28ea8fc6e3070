"""Vectors of hashed words and character sequences, for machines without an encoder's weights."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
_DIMENSIONS = 4096
_LENGTHS = (2, 3, 4)


class TfidfEncoder:
    """Turns texts into TF-IDF vectors of words and of their character 2- to 4-grams, hashed to 4,096 places.

    Needs numpy alone and works for any script. Deterministic across machines and processes.
    """

    name = "tfidf"

    def __init__(self, corpus: Sequence[str]) -> None:
        """Count in how many texts of `corpus` each place occurs."""
        seen = np.zeros(_DIMENSIONS)
        for text in corpus:
            seen[list(_counts(text))] += 1
        # Smoothed as if one more text held everything: a place the corpus never shows has a finite weight.
        self._idf = (np.log((1 + len(corpus)) / (1 + seen)) + 1).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a text, shape (texts, 4096), rows of length 1; a text without a word gives zeros."""
        vectors = np.zeros((len(texts), _DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            for place, count in _counts(text).items():
                vectors[row, place] = (1.0 + np.log(count)) * self._idf[place]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        normed: npt.NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))
        return normed


def _counts(text: str) -> Counter[int]:
    # crc32, because Python's own hash of a string differs from process to process.
    return Counter(zlib.crc32(gram.encode()) % _DIMENSIONS for gram in _grams(text))


def _grams(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        yield f"={word}"
        marked = f" {word} "
        for length in _LENGTHS:
            for start in range(len(marked) - length + 1):
                yield marked[start : start + length]
