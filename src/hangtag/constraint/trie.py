"""A token trie over the tags' spellings, in flat arrays.

Tags are ranked by their token sequences (a sequence before those it begins), which is depth-first order: the
tags below a node are the ranks [lo, hi). Nodes are numbered level by level, so that the children of a node,
too, are one range, sorted by token. A tag that ends in a node has the node's lowest rank. Below a node with
a single tag nothing is stored: the rest of the tag's own tokens is the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import ConstraintError

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class TokenTrie:
    """The trie; node 0 is the root.

    `order` maps a rank to a vocabulary position, `rank` back. `tokens[offsets[r]:offsets[r + 1]]` spell rank
    r. Node n is entered by the token `token[n]`, covers the ranks [lo[n], hi[n]) and has the children
    [child[n], child[n + 1]). `root_of[r]` says which of the root's children, counted from 0, rank r lies below.
    """

    order: Ints
    rank: Ints
    tokens: Ints
    offsets: Ints
    lengths: Ints
    token: Ints
    lo: Ints
    hi: Ints
    child: Ints
    root_of: Ints

    @classmethod
    def build(cls, spellings: Sequence[Sequence[int]], names: Sequence[str]) -> TokenTrie:
        """Return the trie of `spellings`, one per tag in the vocabulary's order; `names` are for errors.

        Raises:
            ConstraintError: a tag has no token, or two tags have the same tokens.
        """
        num_tags = len(spellings)
        lengths = np.fromiter(map(len, spellings), np.int32, num_tags)
        if not lengths.all():
            raise ConstraintError(f"the tag {names[int(lengths.argmin())]!r} has no tokens; rename it")
        flat = np.fromiter(chain.from_iterable(spellings), np.int32, int(lengths.sum()))
        starts = np.concatenate(([0], np.cumsum(lengths[:-1])))
        order = _sorted(flat, starts, lengths)
        lengths, starts = lengths[order], starts[order]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        tokens = flat[np.repeat(starts, lengths) + within]
        shared = _shared(tokens, offsets, lengths)
        same = np.flatnonzero((shared[1:] == lengths[1:]) & (shared[1:] == lengths[:-1]))
        if same.size:
            one, other = names[order[same[0]]], names[order[same[0] + 1]]
            raise ConstraintError(
                f"the tags {one!r} and {other!r} have the same tokens; rename one or choose another tokenizer"
            )
        rank = np.empty(num_tags, np.int32)
        rank[order] = np.arange(num_tags, dtype=np.int32)
        nodes = _nodes(tokens, offsets, lengths, shared)
        return cls(
            order=order.astype(np.int32),
            rank=rank,
            tokens=tokens,
            offsets=offsets.astype(np.int32),
            lengths=lengths,
            **nodes,
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> TokenTrie:
        """Return the trie whose arrays lie under `prefix` + field name; the inverse of `to_arrays`."""
        return cls(**{name: arrays[prefix + name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays under `prefix` + field name."""
        return {prefix + name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def root_tokens(self) -> Ints:
        """The tokens with which tags begin, sorted."""
        return self.token[1 : self.child[1]]

    def spelled(self, rank: int) -> list[int]:
        """Return the tokens of the tag of this rank."""
        spelled: list[int] = self.tokens[self.offsets[rank] : self.offsets[rank + 1]].tolist()
        return spelled

    def child_by(self, node: int, token: int) -> int:
        """Return the child of `node` that `token` leads to, or -1."""
        start, end = self.child[node], self.child[node + 1]
        found = int(start) + int(self.token[start:end].searchsorted(token))
        return found if found < end and self.token[found] == token else -1

    def longest(self, ids: Sequence[int], start: int) -> tuple[int, int]:
        """Return (rank, end): the longest tag that `ids` spells from index `start`; rank -1 if none."""
        node, at, best = 0, start, (-1, start)
        while at < len(ids):
            node = self.child_by(node, ids[at])
            if node < 0:
                break
            at += 1
            rank = int(self.lo[node])
            if self.hi[node] == rank + 1:
                spelled = self.spelled(rank)
                end = start + len(spelled)
                return (rank, end) if list(ids[start:end]) == spelled else best
            if self.lengths[rank] == at - start:
                best = (rank, at)
        return best

    def after_ends(self) -> Ints:
        """Return every token that continues a tag after a place where a shorter tag ends."""
        parent = np.repeat(np.arange(len(self.token)), np.diff(self.child))
        depth = np.zeros(len(self.token), np.int32)
        start, end, level = 0, 1, 0
        while start < end:
            depth[start:end] = level
            start, end, level = end, int(self.child[end]), level + 1
        is_end = self.lengths[self.lo] == depth
        return np.unique(self.token[1:][is_end[parent]])


def _sorted(flat: Ints, starts: NDArray[np.int64], lengths: Ints) -> NDArray[np.int64]:
    """Return the positions in lexicographic order of their token sequences.

    Big-endian bytes compare as the tokens do. Not a padded matrix: one tag of a thousand tokens would make it
    as wide for all.
    """
    blob = flat.astype(">u4").tobytes()
    begins, ends = (starts * 4).tolist(), ((starts + lengths) * 4).tolist()
    keys = [blob[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _shared(tokens: Ints, offsets: NDArray[np.int64], lengths: Ints) -> Ints:
    """Return, for each rank, how many leading tokens it shares with the rank before; -1 for rank 0."""
    shared = np.zeros(len(lengths), np.int32)
    shared[0] = -1
    both = np.minimum(lengths[1:], lengths[:-1])
    alive = np.arange(1, len(lengths))
    depth = 0
    while alive.size:
        alive = alive[both[alive - 1] > depth]
        alive = alive[tokens[offsets[alive] + depth] == tokens[offsets[alive - 1] + depth]]
        depth += 1
        shared[alive] = depth
    return shared


def _nodes(tokens: Ints, offsets: NDArray[np.int64], lengths: Ints, shared: Ints) -> dict[str, Ints]:
    """Return the node arrays, level by level; a level's nodes begin where a rank shares less than its depth."""
    num_tags = len(lengths)
    joined = np.maximum(shared, np.append(shared[1:], -1))
    levels = [(np.zeros(1, np.int64), np.array([num_tags], np.int64))]
    token = [np.full(1, -1, np.int32)]
    for depth in range(1, int(shared.max(initial=0)) + 2):
        breaks = np.append(np.flatnonzero(shared < depth), num_tags)
        lo, hi = breaks[:-1], breaks[1:]
        # Only where several tags share the way so far; the root's children are always there.
        stored = (lengths[lo] >= depth) & ((joined[lo] >= depth - 1) | (depth == 1))
        levels.append((lo[stored], hi[stored]))
        token.append(tokens[offsets[lo[stored]] + depth - 1])
    child = []
    first_of_next = 1
    for (lo, _), (next_lo, _) in zip(levels, [*levels[1:], (np.zeros(0, np.int64),) * 2], strict=True):
        child.append(first_of_next + np.searchsorted(next_lo, lo))
        first_of_next += len(next_lo)
    child.append(np.array([first_of_next]))
    root_lo, root_hi = levels[1]
    return {
        "token": np.concatenate(token).astype(np.int32),
        "lo": np.concatenate([lo for lo, _ in levels]).astype(np.int32),
        "hi": np.concatenate([hi for _, hi in levels]).astype(np.int32),
        "child": np.concatenate(child).astype(np.int32),
        "root_of": np.repeat(np.arange(len(root_lo)), root_hi - root_lo).astype(np.int32),
    }
