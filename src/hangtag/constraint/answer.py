"""Answers read back from tokens: which tags, and how sure the model was of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hangtag.constraint.automaton import Automaton
from hangtag.constraint.trie import TokenTrie
from hangtag.errors import ConstraintError


@dataclass(frozen=True)
class Scored:
    """An answer's tags in the order written, each with a confidence in [0, 1]; `positions` in the vocabulary.

    `stop` is the probability of having ended where the answer ends (of being empty, if it has no tags). The
    product of `stop` and all confidences is the probability of the answer.
    """

    tags: tuple[str, ...]
    positions: tuple[int, ...]
    confidences: tuple[float, ...]
    stop: float


@dataclass(frozen=True)
class Segment:
    """What the tokens [start, end) of an answer say: a tag with what leads to it, or the end (position -1)."""

    position: int
    start: int
    end: int


def segments(automaton: Automaton, ids: Sequence[int]) -> list[Segment]:
    """Return the segments of a whole answer; they cover all of `ids`, the end comes last.

    Raises:
        ConstraintError: `ids` is not a whole answer.
    """
    ids = list(ids)
    if ids == automaton.empty:
        return [Segment(-1, 0, len(ids))]
    found: list[Segment] = []
    start, lead, trie = 0, automaton.open, automaton.first
    while ids[start : start + len(lead)] == lead:
        # After the last tag an empty separator fits as well; then no tag follows.
        rank, end = trie.longest(ids, start + len(lead))
        if rank < 0:
            break
        found.append(Segment(int(trie.order[rank]), start, end))
        start, lead, trie = end, automaton.separator, automaton.later
    if not found or ids[start:] != automaton.close:
        raise ConstraintError(
            f"not a whole answer: {len(ids)} tokens, of which the first {start} were read; "
            "expected the opening, tags of the vocabulary, and the end"
        )
    return [*found, Segment(-1, start, len(ids))]


def confidences(found: Sequence[Segment], logprobs: Sequence[float]) -> list[float]:
    """Return one probability a segment: the product over its tokens, given natural logarithms."""
    return [min(1.0, math.exp(math.fsum(logprobs[part.start : part.end]))) for part in found]


def spell(automaton: Automaton, positions: Sequence[int]) -> list[int]:
    """Return the tokens of the whole answer with these vocabulary positions, in this order."""
    if not positions:
        return list(automaton.empty)

    def spelled(trie: TokenTrie, position: int) -> list[int]:
        return trie.spelled(int(trie.rank[position]))

    ids = [*automaton.open, *spelled(automaton.first, positions[0])]
    for position in positions[1:]:
        ids += [*automaton.separator, *spelled(automaton.later, position)]
    return ids + automaton.close
