"""The vocabulary's parents as the constraint needs them: who comes with whom, by number."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from hangtag.constraint.availability import Grouping
from hangtag.constraint.limits import FacetIndex
from hangtag.constraint.trie import Ints, TokenTrie


class Forest:
    """Tags in groups of equal facet and parent, because the members of a group drag the same tags along.

    Parents in `skipped` facets (a bit each) are passed over: a tag's parent is then its next ancestor. `chain`
    holds, per group, the parent, its parent and so on as vocabulary positions, filled up with `nobody`.
    """

    def __init__(
        self, parent_of: Ints, index: FacetIndex, skipped: int, first: TokenTrie, later: TokenTrie
    ) -> None:
        num_tags = len(parent_of)
        self.nobody = num_tags
        is_skipped = np.array([bool(skipped >> f & 1) for f in range(len(index.names))])
        # `nobody` is its own parent, so that every chain can be followed to any length.
        above = np.append(np.where(parent_of < 0, num_tags, parent_of), num_tags)
        facet_of = np.append(index.facet_of, -1)
        parent = above.copy()
        while (pass_over := (parent < num_tags) & is_skipped[facet_of[parent]]).any():
            parent[pass_over] = above[parent[pass_over]]
        self.parent: Ints = parent.astype(np.int32)
        keys = index.facet_of.astype(np.int64) * (num_tags + 1) + parent[:num_tags]
        unique, group_of = np.unique(keys, return_inverse=True)
        self.group_of: Ints = group_of.astype(np.int32)
        self.facet: Ints = (unique // (num_tags + 1)).astype(np.int32)
        links = [(unique % (num_tags + 1)).astype(np.int32)]
        while (links[-1] < num_tags).any():
            links.append(self.parent[links[-1]])
        self.chain: Ints = np.stack(links, axis=1)
        self.chain_facet: Ints = facet_of[self.chain].astype(np.int32)
        in_facet = ((self.chain == num_tags) | (self.chain_facet == self.facet[:, None])).all(axis=1)
        # Tags that drag no tag of another facet along, parents before children: any first few of a facet are
        # a set that needs no other tag.
        depth = (self.chain < num_tags).sum(axis=1)[self.group_of]
        lengths = later.lengths[later.rank]
        own = np.flatnonzero(in_facet[self.group_of])
        own = own[np.lexsort((lengths[own], depth[own], index.facet_of[own]))]
        starts = np.searchsorted(index.facet_of[own], np.arange(len(index.names) + 1))
        self._own = [own[a:b] for a, b in pairwise(starts.tolist())]
        self.has_child = np.zeros(num_tags + 1, bool)
        self.has_child[self.parent[:num_tags]] = True
        by_group = np.lexsort((lengths, self.group_of))
        self._members: Ints = by_group.astype(np.int32)
        self._member_start = np.searchsorted(self.group_of[by_group], np.arange(len(unique) + 1))
        self.first = Grouping(first, self.group_of, len(unique))
        self.later = self.first if later is first else Grouping(later, self.group_of, len(unique))

    def num_own(self, facet: int) -> int:
        """Return how many of the facet's tags drag no tag of another facet along."""
        return len(self._own[facet])

    def own(self, facet: int, used: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield (chain depth, position) of such tags that are not in `used`, parents first, then short ones."""
        held = set(used)
        for position in self._own[facet].tolist():
            if position not in held:
                yield len(self.missing(position, ())), position

    def missing(self, position: int, held: Iterable[int]) -> list[int]:
        """Return the tag's ancestors that are not in `held`, nearest first."""
        held = held if isinstance(held, set | frozenset) else set(held)
        found = []
        up = int(self.parent[position])
        while up != self.nobody:
            if up not in held:
                found.append(up)
            up = int(self.parent[up])
        return found

    def split(self, group: int, taken: Container[int], most: int) -> tuple[int | None, list[int]]:
        """Return the group's shortest childless tag, and up to `most` of those with children, shortest first.

        Tags in `taken` are passed over.
        """
        members = self._members[self._member_start[group] : self._member_start[group + 1]]
        has_child = self.has_child[members]
        childless = next((int(p) for p in members[~has_child] if int(p) not in taken), None)
        others = (int(p) for p in members[has_child] if int(p) not in taken)
        return childless, list(islice(others, most))

    def dragged(self, held: Iterable[int]) -> NDArray[np.bool_]:
        """Return, shaped like `chain`, which ancestors a group's tag would bring beside those in `held`."""
        is_held = np.zeros(self.nobody + 1, bool)
        is_held[self.nobody] = True
        is_held[list(held)] = True
        return ~is_held[self.chain]
