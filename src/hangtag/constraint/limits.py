"""How many tags an answer may hold, and which tags a partly written answer may still add.

`FacetRules` answers exactly: a tag may be added if and only if some legal answer that fits into the remaining
tokens continues with it. Additions that an answer owes (tags up to `min_tags` and up to the facets' minima)
are a basis of a matroid (sets of a fixed size with bounds per facet), so the cheapest ones are found greedily,
and adding a tag replaces the dearest addition that it makes unnecessary.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hangtag.constraint.availability import Base, Choice, Grouping
from hangtag.constraint.trie import Ints
from hangtag.errors import ConstraintError
from hangtag.vocabulary import FacetLimits

UNLIMITED = 1 << 40


@dataclass(frozen=True)
class Limits:
    """What one request asks of its answer.

    `facets` None means the vocabulary's own limits; given, it replaces them all, and a facet that it does not
    name is unlimited. `only_facets` admits no tag of another facet, and passes over other facets' minima.
    `with_parents`: a tag's parents come with it (those of the admitted facets), at the latest before the end.
    """

    min_tags: int = 0
    max_tags: int | None = None
    facets: Mapping[str, FacetLimits] | None = None
    only_facets: frozenset[str] | None = None
    with_parents: bool = False

    def __post_init__(self) -> None:
        if self.min_tags < 0:
            raise ConstraintError(f"min_tags: got {self.min_tags}, expected 0 or more")
        if self.max_tags is not None and self.max_tags < self.min_tags:
            raise ConstraintError(f"max_tags: got {self.max_tags}, expected min_tags ({self.min_tags}) or more")

    @property
    def key(self) -> tuple[object, ...]:
        """The limits as something hashable; equal limits have equal keys."""
        facets = self.facets
        return (
            self.min_tags,
            self.max_tags,
            None if facets is None else tuple(sorted((name, f.min, f.max) for name, f in facets.items())),
            self.only_facets,
            self.with_parents,
        )


@dataclass(frozen=True)
class FacetIndex:
    """Facets by number: `facet_of` per vocabulary position, and each facet's tags, shortest spelling first."""

    names: tuple[str, ...]
    facet_of: Ints
    start: Ints
    by_length: Ints

    @classmethod
    def build(cls, names: tuple[str, ...], facet_of: Ints, lengths: Ints) -> FacetIndex:
        """Return the index; `lengths` are tokens per vocabulary position."""
        by_length = np.lexsort((lengths, facet_of)).astype(np.int32)
        start = np.searchsorted(facet_of[by_length], np.arange(len(names) + 1)).astype(np.int32)
        return cls(names, facet_of, start, by_length)

    @property
    def sizes(self) -> dict[str, int]:
        """How many tags each facet has."""
        return dict(zip(self.names, np.diff(self.start).tolist(), strict=True))

    def cheapest(self, facet: int, used: Sequence[int]) -> Iterator[int]:
        """Yield the facet's vocabulary positions without those in `used`, shortest spelling first."""
        for at in range(int(self.start[facet]), int(self.start[facet + 1])):
            position = int(self.by_length[at])
            if position not in used:
                yield position


@dataclass(frozen=True)
class ResolvedLimits:
    """Limits by facet number. Facets without a limit have `most` = their size; `closed` is a bit per facet."""

    min_tags: int
    max_tags: int
    least: list[int]
    most: list[int]
    closed: int

    @classmethod
    def of(
        cls, limits: Limits, vocabulary_limits: Mapping[str, FacetLimits], sizes: Mapping[str, int]
    ) -> ResolvedLimits:
        """Return `limits` by number; `sizes` counts each facet's tags, in the facets' order.

        Raises:
            ConstraintError: an unknown facet is named, or no set of tags obeys the limits.
        """
        chosen = vocabulary_limits if limits.facets is None else limits.facets
        for name in (*chosen, *(limits.only_facets or ())):
            if name not in sizes:
                raise ConstraintError(
                    f"facet {name!r} is not in the vocabulary; expected some of {', '.join(map(repr, sizes))}"
                )
        least, most, closed = [], [], 0
        for facet, (name, size) in enumerate(sizes.items()):
            limit = chosen.get(name, FacetLimits())
            if limits.only_facets is not None and name not in limits.only_facets:
                limit = FacetLimits(max=0)
            highest = size if limit.max is None else min(limit.max, size)
            if limit.min > highest:
                raise ConstraintError(
                    f"facet {name!r}: got min {limit.min}, but max is {limit.max} and it has {size} tags"
                )
            least.append(limit.min)
            most.append(highest)
            if highest == 0:
                closed |= 1 << facet
        max_tags = sum(most) if limits.max_tags is None else min(limits.max_tags, sum(most))
        if sum(least) > max_tags:
            raise ConstraintError(f"the facets' minima ask for {sum(least)} tags, but max_tags is {max_tags}")
        if limits.min_tags > max_tags:
            raise ConstraintError(
                f"min_tags: got {limits.min_tags}, but the facets' limits admit only {max_tags} tags"
            )
        return cls(limits.min_tags, max_tags, least, most, closed)


@dataclass
class Tally:
    """What an answer holds: `tags` (vocabulary positions), tags by facet, and the facets that are full."""

    tags: list[int]
    counts: dict[int, int]
    closed: int

    def copy(self) -> Tally:
        """Return a tally that changes independently."""
        return Tally(self.tags.copy(), self.counts.copy(), self.closed)


class FacetRules:
    """Resolved limits without parents, applied to tallies.

    `end_cost` and `join_cost` are the tokens of `close` and `separator`.
    """

    def __init__(
        self,
        limits: ResolvedLimits,
        index: FacetIndex,
        first: Grouping,
        later: Grouping,
        *,
        join_cost: int,
        end_cost: int,
    ) -> None:
        self._limits = limits
        self._index = index
        self._first = first
        self._later = later
        self._join_cost = join_cost
        self._end_cost = end_cost
        self._lengths: Ints = later.trie.lengths[later.trie.rank]
        self._dearest = int(self._lengths.max()) + join_cost
        self._needy = [facet for facet, least in enumerate(limits.least) if least]
        self._all_closed = (1 << len(index.names)) - 1

    def begin(self) -> Tally:
        """Return the tally of an empty answer."""
        return Tally([], {}, self._limits.closed)

    def add(self, tally: Tally, position: int) -> None:
        """Count the tag at this vocabulary position in."""
        facet = int(self._index.facet_of[position])
        tally.tags.append(position)
        count = tally.counts[facet] = tally.counts.get(facet, 0) + 1
        if count >= self._limits.most[facet]:
            tally.closed |= 1 << facet

    def choose(self, tally: Tally, budget: int) -> tuple[Choice, bool]:
        """Return the tags that may come next and whether the answer may end.

        `budget` counts tokens after the last complete tag, its separator or the end included.

        Raises:
            ConstraintError: no legal end fits; cannot happen after a choice that was allowed.
        """
        limits, tags = self._limits, tally.tags
        grouping = self._later if tags else self._first
        owed = {f: n for f in self._needy if (n := limits.least[f] - tally.counts.get(f, 0)) > 0}
        num_owed = sum(owed.values())
        num_more = max(num_owed, limits.min_tags - len(tags))
        slots = limits.max_tags - len(tags)
        closed = tally.closed
        if slots <= 0:
            closed = self._all_closed
        elif num_owed == slots:
            closed |= self._all_closed & ~sum(1 << facet for facet in owed)
        if budget >= (max(num_more, 0) + 1) * self._dearest + self._end_cost:
            base = grouping.without(closed)
        elif num_more <= 0:
            base = self._short_enough(grouping, closed, budget - self._end_cost)
        else:
            base = grouping.limited(self._limits_by_facet(tally, closed, owed, num_more, budget))
        return Choice(base, tags), num_more <= 0

    def _short_enough(self, grouping: Grouping, closed: int, budget: int) -> Base:
        limits = np.full(grouping.num_groups, budget - self._join_cost, np.int32)
        limits[_bits(closed)] = -1
        return grouping.limited(limits)

    def _limits_by_facet(
        self, tally: Tally, closed: int, owed: Mapping[int, int], num_more: int, budget: int
    ) -> Ints:
        """Return, per facet, the longest spelling that leaves room for what the answer will still owe."""
        planned = self._cheapest_additions(tally, owed, num_more)
        cost = self._end_cost + sum(map(sum, planned.values()))
        if cost > budget:
            raise ConstraintError(
                f"no legal answer fits: the shortest end takes {cost} more tokens, {budget} are left; "
                "raise max_tokens or lower min_tags and the facets' minima"
            )
        # Dropping the dearest addition of a facet that has more than it owes keeps every minimum.
        surplus = max((costs[-1] for f, costs in planned.items() if len(costs) > owed.get(f, 0)), default=0)
        longest = np.full(len(self._index.names), -1, np.int32)
        for facet in range(len(longest)):
            if closed >> facet & 1:
                continue
            costs = planned.get(facet, ())
            has_room = len(costs) + tally.counts.get(facet, 0) < self._limits.most[facet]
            saved = max(costs[-1] if costs else 0, surplus if has_room else 0)
            longest[facet] = max(-1, budget - (cost - saved) - self._join_cost)
        return longest

    def _cheapest_additions(self, tally: Tally, owed: Mapping[int, int], num_more: int) -> dict[int, list[int]]:
        """Return the costs, ascending, of the cheapest `num_more` tags that settle what is owed, by facet."""
        used = tally.tags
        planned: dict[int, list[int]] = {}
        waiting: list[tuple[int, int, Iterator[int]]] = []
        num_free = num_more - sum(owed.values())
        for facet in range(len(self._index.names)) if num_free else owed:
            if tally.closed >> facet & 1:
                continue
            costs = self._costs_of(facet, used)
            if facet in owed:
                planned[facet] = [next(costs) for _ in range(owed[facet])]
            if num_free and (cost := next(costs, None)) is not None:
                waiting.append((cost, facet, costs))
        heapq.heapify(waiting)
        while num_free:
            cost, facet, costs = heapq.heappop(waiting)
            held = planned.setdefault(facet, [])
            if len(held) + tally.counts.get(facet, 0) >= self._limits.most[facet]:
                continue
            held.append(cost)
            num_free -= 1
            if (following := next(costs, None)) is not None:
                heapq.heappush(waiting, (following, facet, costs))
        return planned

    def _costs_of(self, facet: int, used: Sequence[int]) -> Iterator[int]:
        return (self._join_cost + int(self._lengths[p]) for p in self._index.cheapest(facet, used))


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
