"""Which tags may still be chosen, and which tokens therefore begin one.

A tag may be chosen if its spelling is short enough for its group's limit and the answer does not hold it yet.
Groups are facets (or facet and parent); a limit of -1 closes the group. What the limits alone allow does not
depend on the answer: it is worked out once (`Base`) and shared by all answers that come to the same limits.
An answer (`Choice`) adds what it holds: only the roots' children of those few tags have to be looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hangtag.constraint.trie import Ints, TokenTrie

# Bases are bounded by their size, not their number: a vocabulary can have ten roots or 200,000.
_KEPT_BYTES = 1 << 26


class Base:
    """What limits per group leave of a trie; immutable, without regard to any answer.

    `roots` counts the tags left below each of the root's children, `ids` are the tokens of those with any.
    """

    __slots__ = ("_groups", "_limits", "ids", "num_tags", "roots", "trie")

    def __init__(self, trie: TokenTrie, groups: Ints, limits: Ints | None, roots: Ints) -> None:
        self.trie = trie
        self.roots = roots
        self.num_tags = int(roots.sum())
        tokens = trie.root_tokens
        ids = tokens if limits is None else tokens[roots > 0]
        self.ids: Ints = ids
        self._groups = groups
        self._limits = limits

    def holds(self, rank: int) -> bool:
        """Return whether the tag of this rank is left."""
        return self._limits is None or bool(self.trie.lengths[rank] <= self._limits[self._groups[rank]])

    def within(self, lo: int, hi: int) -> Ints:
        """Return the ranks in [lo, hi) that are left, ascending."""
        if self._limits is None:
            return np.arange(lo, hi, dtype=np.int32)
        limits = self._limits.take(self._groups[lo:hi])
        left = np.flatnonzero(self.trie.lengths[lo:hi] <= limits).astype(np.int32)
        left += lo
        return left


class Grouping:
    """A trie's tags in groups, with the bases that were asked for.

    `group_of` names each vocabulary position's group.
    """

    def __init__(self, trie: TokenTrie, group_of: Ints, num_groups: int) -> None:
        self.trie = trie
        self.num_groups = num_groups
        self._groups: Ints = group_of[trie.order]
        self._max_length = int(trie.lengths.max())
        num_roots = len(trie.root_tokens)
        self._all: Ints = np.bincount(trie.root_of, minlength=num_roots).astype(np.int32)
        # (group, root) pairs that occur, by group: what closing a group takes from the roots.
        pairs, counts = np.unique(self._groups.astype(np.int64) * num_roots + trie.root_of, return_counts=True)
        self._pair_root = pairs % num_roots
        self._pair_count = counts.astype(np.int32)
        self._pair_start = np.searchsorted(pairs, np.arange(num_groups + 1) * num_roots)
        self._bases: dict[int | bytes, Base] = {}
        self._num_kept = max(16, _KEPT_BYTES // (8 * num_roots + num_groups * 4 + 256))

    def without(self, closed: int) -> Base:
        """Return what is left without the groups whose bits are set in `closed`."""
        base = self._bases.get(closed)
        if base is None:
            groups = [group for group in range(self.num_groups) if closed >> group & 1]
            limits = np.full(self.num_groups, self._max_length, np.int32)
            limits[groups] = -1
            # Facets fill one by one, so what was left before the last one is mostly at hand.
            last = next((g for g in groups if closed & ~(1 << g) in self._bases), None)
            roots = (self._all if last is None else self._bases[closed & ~(1 << last)].roots).copy()
            for group in groups if last is None else [last]:
                pairs = slice(self._pair_start[group], self._pair_start[group + 1])
                roots[self._pair_root[pairs]] -= self._pair_count[pairs]
            base = Base(self.trie, self._groups, limits if groups else None, roots)
            self._keep(closed, base)
        return base

    def limited(self, limits: Ints) -> Base:
        """Return what is left where group g takes tags of at most `limits[g]` tokens. A new one costs a pass
        over the tags."""
        key = np.minimum(limits, self._max_length).tobytes()
        base = self._bases.get(key)
        if base is None:
            limits = np.frombuffer(key, np.int32)
            left = self.trie.lengths <= limits.take(self._groups)
            roots = np.bincount(self.trie.root_of[left], minlength=len(self._all)).astype(np.int32)
            base = Base(self.trie, self._groups, limits, roots)
            self._keep(key, base)
        return base

    def _keep(self, key: int | bytes, base: Base) -> None:
        while len(self._bases) >= self._num_kept:
            self._bases.pop(next(iter(self._bases)), None)
        self._bases[key] = base


class Choice:
    """The tags that one answer may add next; immutable, shared by forks.

    `used` are the vocabulary positions that the answer holds; `extra` may be chosen beside the base.
    """

    __slots__ = ("_extra", "_ids", "_used", "base", "num_tags", "trie")

    def __init__(self, base: Base, used: Sequence[int], extra: Sequence[int] = ()) -> None:
        trie = base.trie
        self.trie = trie
        self.base = base
        rank = trie.rank
        self._used = sorted([rank_ for position in used if base.holds(rank_ := int(rank[position]))])
        self._extra = sorted([rank_ for position in extra if not base.holds(rank_ := int(rank[position]))])
        self.num_tags = base.num_tags - len(self._used) + len(self._extra)
        self._ids: Ints | None = None

    def __bool__(self) -> bool:
        return self.num_tags > 0

    @property
    def ids(self) -> Ints:
        """The tokens that begin an available tag, sorted; computed when first asked for."""
        if self._ids is None:
            self._ids = self._changed_ids()
        return self._ids

    def changed_roots(self) -> set[int]:
        """Return which of the root's children have other tags below them than the base leaves."""
        return {int(self.trie.root_of[rank]) for rank in (*self._used, *self._extra)}

    def below(self, token: int) -> Ints:
        """Return the ranks of the available tags that begin with `token`, ascending; empty if there is none."""
        trie = self.trie
        node = trie.child_by(0, token)
        if node < 0:
            return np.zeros(0, np.int32)
        lo, hi = int(trie.lo[node]), int(trie.hi[node])
        ranks = self.base.within(lo, hi)
        used = self._used[bisect_left(self._used, lo) : bisect_left(self._used, hi)]
        if used:
            ranks = np.delete(ranks, ranks.searchsorted(used))
        extra = self._extra[bisect_left(self._extra, lo) : bisect_left(self._extra, hi)]
        if extra:
            ranks = np.insert(ranks, ranks.searchsorted(extra), extra)
        return ranks

    def _changed_ids(self) -> Ints:
        base, trie = self.base, self.trie
        change: dict[int, int] = {}
        for ranks, step in ((self._used, -1), (self._extra, 1)):
            for rank in ranks:
                root = int(trie.root_of[rank])
                change[root] = change.get(root, 0) + step
        ids = base.ids
        tokens = trie.root_tokens
        gone = [int(tokens[r]) for r, step in change.items() if step < 0 and base.roots[r] + step == 0]
        come = sorted(int(tokens[r]) for r, step in change.items() if step > 0 and base.roots[r] == 0)
        if gone:
            # Copying the runs between is several times faster than np.delete where there are many ids.
            cuts = [-1, *ids.searchsorted(sorted(gone)).tolist(), len(ids)]
            ids = np.concatenate([ids[start + 1 : end] for start, end in pairwise(cuts)])
        if come:
            ids = np.insert(ids, ids.searchsorted(come), come)
        return ids
