"""Where in a text the linear tagger's features stand, and so what each of its characters adds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\b\w+\b")
_CHUNK = re.compile(r"\S+")

Occurrence = tuple[str, int, int]
"""A feature's name and the characters [start, end) of the lowered text that it covers."""


def attribute(features: Any, weights: npt.NDArray[np.float32], text: str) -> npt.NDArray[np.float64]:
    """Return each character's part of the sums `TF-IDF x weight`, shape (characters, tags).

    `features` is the fitted union of a word and a character vectorizer, `weights` of shape (features, tags).
    """
    lowered, places = _lowered(text)
    row = features.transform([text]).tocsr()
    value_of = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
    found = np.zeros((len(text), weights.shape[1]))
    offset = 0
    for name, vectorizer in features.transformer_list:
        occurrences = list(_words(vectorizer, lowered) if name == "words" else _characters(vectorizer, lowered))
        counts = Counter(feature for feature, _, _ in occurrences)
        for feature, start, end in occurrences:
            column = vectorizer.vocabulary_.get(feature)
            if column is None or offset + column not in value_of:
                continue
            covered = sorted({places[at] for at in range(start, end) if not lowered[at].isspace()})
            share = value_of[offset + column] / counts[feature] / len(covered)
            found[covered] += share * weights[offset + column]
        offset += len(vectorizer.vocabulary_)
    return found


def _lowered(text: str) -> tuple[str, list[int]]:
    """Return the text in lower case, and for each of its characters the one of `text` that it came from."""
    parts = [character.lower() for character in text]
    return "".join(parts), [place for place, part in enumerate(parts) for _ in part]


def _words(vectorizer: Any, text: str) -> Iterator[Occurrence]:
    least, most = vectorizer.ngram_range
    words = list(_WORD.finditer(text))
    for size in range(least, most + 1):
        for first in range(len(words) - size + 1):
            some = words[first : first + size]
            yield " ".join(word[0] for word in some), some[0].start(), some[-1].end()


def _characters(vectorizer: Any, text: str) -> Iterator[Occurrence]:
    """Yield what scikit-learn's `char_wb` counts; a space that pads a word covers nothing."""
    least, most = vectorizer.ngram_range
    for chunk in _CHUNK.finditer(text):
        padded, begin = f" {chunk[0]} ", chunk.start() - 1
        for size in range(least, most + 1):
            for first in range(max(1, len(padded) - size + 1)):
                start, end = begin + first, min(begin + first + size, begin + len(padded))
                yield padded[first : first + size], max(start, chunk.start()), min(end, chunk.end())
            if len(padded) <= size:
                # A word that is no longer than this is counted once.
                break
