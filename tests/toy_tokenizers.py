"""Small tokenizers for tests: bytes with merges, and one that loses spaces."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

TAG_WORDS = ("red", "blue", "navy blue", "café", '12" wide', "back\\slash", "靴", "👟 sneaker", "a/b", "b")


class ByteTokenizer:
    """Byte-level BPE with the given merges (pairs of ids; the nth makes id 256 + n)."""

    def __init__(self, merges: Sequence[tuple[int, int]] = ()) -> None:
        self.merges = list(merges)
        self.bytes_of = [bytes([byte]) for byte in range(256)]
        for one, other in self.merges:
            self.bytes_of.append(self.bytes_of[one] + self.bytes_of[other])
        self.fingerprint = hashlib.sha256(repr(self.merges).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.bytes_of[token] for token in ids).decode()

    def _encode(self, text: str) -> list[int]:
        ids = list(text.encode())
        for number, pair in enumerate(self.merges):
            merged: list[int] = []
            for token in ids:
                if merged and (merged[-1], token) == pair:
                    merged[-1] = 256 + number
                else:
                    merged.append(token)
            ids = merged
        return ids


def merges_of(texts: Sequence[str], picks: Sequence[int]) -> list[tuple[int, int]]:
    """Return merges that occur in `texts`: each pick chooses one of the neighbouring pairs present."""
    merges: list[tuple[int, int]] = []
    for pick in picks:
        spelled = ByteTokenizer(merges).encode(texts)
        pairs = sorted({pair for ids in spelled for pair in pairwise(ids)})
        if not pairs:
            break
        merges.append(pairs[pick % len(pairs)])
    return merges


class WordTokenizer:
    """Whole words; spaces are lost, as in uncased WordPiece."""

    fingerprint = "words"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[sum(word.encode()) for word in text.lower().split()] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))
