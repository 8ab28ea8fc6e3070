"""Limits under which a tag's parents come with it.

An answer's final set must hold each tag's parents, so a tag may be added only if its missing ancestors still
fit. Each tally carries a plan: tags that lead from it to a legal end. Adding a planned tag is therefore always
allowed. For other tags three tests follow, from cheap to dear: counts, which decide alone where minima can be
met without crossing facets and tokens are ample (`is_settled`); the plan with the tag and its ancestors put
on top; and a search, bounded in effort. The first is exact; past it a legal answer may be cut off, but never
does an answer fail to close.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hangtag.constraint.availability import Choice
from hangtag.constraint.forest import Forest
from hangtag.constraint.limits import FacetIndex, ResolvedLimits, Tally
from hangtag.constraint.trie import Ints
from hangtag.errors import ConstraintError

# Bounds of the search: steps per choice, candidates per step, and tags with children looked at in one group.
_SEARCH_STEPS, _CANDIDATES, _WITH_CHILDREN = 600, 64, 16


@dataclass(frozen=True)
class _Outlook:
    """Why a choice was allowed, for whoever makes it: what each addition leaves to plan.

    `kept` stays planned where a tag of group g has at most `longest[g]` tokens. `by_group` holds the plan that
    was found for a group's childless tag, `by_tag` for one tag.
    """

    is_ample: bool
    kept: tuple[int, ...] = ()
    longest: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    by_group: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    by_tag: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class ParentTally(Tally):
    """A tally with its plan (vocabulary positions, parents before children) and its last choice's outlook."""

    plan: tuple[int, ...] = ()
    outlook: _Outlook = field(default_factory=lambda: _Outlook(True))

    def copy(self) -> ParentTally:
        """Return a tally that changes independently."""
        return ParentTally(self.tags.copy(), self.counts.copy(), self.closed, self.plan, self.outlook)


class ParentRules:
    """Resolved limits with parents, applied to tallies; the counterpart of `FacetRules`."""

    def __init__(
        self, limits: ResolvedLimits, index: FacetIndex, forest: Forest, *, join_cost: int, end_cost: int
    ) -> None:
        self._limits = limits
        self._index = index
        self._forest = forest
        self._end_cost = end_cost
        later = forest.later.trie
        costs = later.lengths[later.rank] + join_cost
        self._join_cost = join_cost
        self._costs: Ints = np.append(costs, 0).astype(np.int32)
        self._longest = int(later.lengths.max())
        self._dearest = self._longest + join_cost
        self._steps = _SEARCH_STEPS
        self._least = np.array(limits.least)
        self._most = np.array(limits.most)
        facets = range(len(index.names))
        reachable = sum(min(limits.most[f], forest.num_own(f)) for f in facets)
        self.is_settled = reachable >= limits.min_tags and all(
            forest.num_own(f) >= limits.least[f] for f in facets
        )

    def begin(self) -> ParentTally:
        """Return the tally of an empty answer.

        Raises:
            ConstraintError: no set with its parents obeys the limits, as far as the search sees.
        """
        self._steps = _SEARCH_STEPS
        plan = self._planned(()) if self.is_settled else self._search((), None)
        if plan is None:
            raise ConstraintError(
                "no set of tags with their parents was found that obeys min_tags, max_tags and the facets' "
                "limits; raise the maxima or lower the minima"
            )
        return ParentTally([], {}, self._limits.closed, plan)

    def add(self, tally: Tally, position: int) -> None:
        """Count the tag at this vocabulary position in, and plan on."""
        assert isinstance(tally, ParentTally)
        outlook, group = tally.outlook, int(self._forest.group_of[position])
        later = self._forest.later.trie
        tags = [*tally.tags, position]
        if position in tally.plan:
            plan = tally.plan
        elif outlook.is_ample:
            plan = self._planned(tags)
        elif later.lengths[later.rank[position]] <= outlook.longest[group]:
            dragged = self._forest.missing(position, {*tally.tags, *outlook.kept})
            plan = (*outlook.kept, *reversed(dragged))
        elif position in outlook.by_tag:
            plan = outlook.by_tag[position]
        else:
            one, plan = outlook.by_group[group]
            # A planned tag changes places with the one that stood for its group.
            plan = (*plan, one) if position in plan else plan
        tally.plan = self._pruned(tags, [planned for planned in plan if planned != position])
        tally.tags.append(position)

    def choose(self, tally: Tally, budget: int) -> tuple[Choice, bool]:
        """Return the tags that may come next and whether the answer may end; as `FacetRules.choose`."""
        assert isinstance(tally, ParentTally)
        tags = tally.tags
        if not tags and tally.plan and self._cost(tally.plan) + self._end_cost > budget:
            self._steps = _SEARCH_STEPS
            tally.plan = self._search((), budget - self._end_cost) or self._refuse(budget)
        missing = self._ancestors(tags)
        counts = self._counts([*tags, *missing])
        owed = np.maximum(self._least - counts, 0)
        num_more = max(len(missing) + int(owed.sum()), self._limits.min_tags - len(tags))
        is_possible, _ = self._fits([*tags, *missing], counts, owed)
        most_to_write = max(num_more, 0) + 1 + self._forest.chain.shape[1]
        extra = set(tally.plan)
        if self.is_settled and budget >= most_to_write * self._dearest + self._end_cost:
            tally.outlook = _Outlook(True)
            longest = np.where(is_possible, self._longest, -1)
        else:
            longest = self._room(tally, budget, is_possible, is_owing=len(tally.plan) > len(missing))
            extra.update(tally.outlook.by_tag)
        grouping = self._forest.later if tags else self._forest.first
        return Choice(grouping.limited(longest.astype(np.int32)), tags, list(extra)), num_more <= 0

    def _room(
        self, tally: ParentTally, budget: int, is_possible: NDArray[np.bool_], *, is_owing: bool
    ) -> NDArray[np.int64]:
        """Return, per group, the longest spelling that surely leaves a legal end; sets the tally's outlook.

        If nothing but missing ancestors has to follow, the plan is the only one and no search is needed.
        """
        kept = self._trimmed(tally)
        held = [*tally.tags, *kept]
        fits, dragged = self._fits(held, self._counts(held), np.zeros_like(self._least))
        cost = self._cost(kept) + (dragged * self._costs[self._forest.chain]).sum(axis=1)
        room = budget - self._end_cost - self._join_cost - cost
        sure = np.clip(np.where(fits, room, -1), -1, self._longest)
        longest = sure.copy()
        tally.outlook = _Outlook(False, kept, sure.astype(np.int32))
        if is_owing:
            self._steps = _SEARCH_STEPS
            for group in np.flatnonzero(is_possible & (sure < self._longest)).tolist():
                self._look_for(tally, group, budget - self._end_cost, longest)
                if self._steps <= 0:
                    break
        return longest

    def _look_for(self, tally: ParentTally, group: int, budget: int, longest: NDArray[np.int64]) -> None:
        """Search what else of the group can be added; enters it into `longest` and the tally's outlook."""
        taken = {*tally.tags, *tally.plan}
        childless, others = self._forest.split(group, taken, _WITH_CHILDREN)
        for position in ([] if childless is None else [childless]) + others:
            cost = int(self._costs[position])
            if cost - self._join_cost <= longest[group]:
                continue
            plan = self._search([*tally.tags, position], budget - cost)
            if plan is None:
                continue
            if position == childless:
                room = budget - self._cost(plan) - self._join_cost
                longest[group] = min(room, self._longest)
                tally.outlook.by_group[group] = (position, plan)
            else:
                tally.outlook.by_tag[position] = plan

    def _trimmed(self, tally: ParentTally) -> tuple[int, ...]:
        """Return the plan without its last tag if only `min_tags` asks for that: another tag takes its place."""
        *rest, last = tally.plan or (-1,)
        return tally.plan if last < 0 or self._is_needed(last, [*tally.tags, *rest]) else tuple(rest)

    def _pruned(self, tags: Sequence[int], plan: Sequence[int]) -> tuple[int, ...]:
        """Return the plan without what nothing asks for any more."""
        kept = list(plan)
        for planned in reversed(plan):
            if len(tags) + len(kept) <= self._limits.min_tags:
                break
            rest = [position for position in kept if position != planned]
            if not self._is_needed(planned, [*tags, *rest]):
                kept = rest
        return tuple(kept)

    def _is_needed(self, position: int, held: Sequence[int]) -> bool:
        """Return whether `held` lacks the tag: as an ancestor, or for its facet's minimum."""
        facet = int(self._index.facet_of[position])
        in_facet = sum(int(self._index.facet_of[p]) == facet for p in held)
        return in_facet < self._limits.least[facet] or any(position in self._forest.missing(p, ()) for p in held)

    def _fits(
        self, held: Sequence[int], counts: NDArray[np.int64], owed: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which groups' tags fit on top of `held` with all that they drag along, and what they drag.

        `counts` are `held` by facet; `owed` tags by facet have to fit as well.
        """
        forest = self._forest
        dragged = forest.dragged(held)
        left = np.append(self._most - counts, 0)
        owed = np.append(owed, 0)
        fits = left[forest.facet] >= 1
        settles = (owed[forest.facet] >= 1).astype(np.int64)
        for link in range(forest.chain.shape[1]):
            facet = forest.chain_facet[:, link]
            before = (dragged[:, :link] & (forest.chain_facet[:, :link] == facet[:, None])).sum(axis=1)
            number = before + (forest.facet == facet) + 1
            fits &= ~dragged[:, link] | (number <= left[facet])
            settles += dragged[:, link] & (number <= owed[facet])
        total = len(held) + dragged.sum(axis=1) + 1 + int(owed.sum()) - settles
        return fits & (total <= self._limits.max_tags), dragged

    def _planned(self, tags: Sequence[int]) -> tuple[int, ...]:
        """Return a plan for `tags` from tags that cross no facet; always there if settled and counts fit."""
        held = set(tags)
        plan = self._ancestors(tags)
        held.update(plan)
        counts = Counter(self._index.facet_of[list(held)].tolist())
        for facet, least in enumerate(self._limits.least):
            if counts[facet] < least:
                for _, position in self._forest.own(facet, held):
                    plan.append(position)
                    counts[facet] += 1
                    if counts[facet] == least:
                        break
        held.update(plan)
        num_fill = self._limits.min_tags - len(held)
        if num_fill > 0:
            fill = []
            for facet, most in enumerate(self._limits.most):
                room = min(most - counts[facet], num_fill)
                if room > 0:
                    fill += [pair for _, pair in zip(range(room), self._forest.own(facet, held), strict=False)]
            fill.sort(key=lambda pair: (pair[0], int(self._costs[pair[1]])))
            plan += [position for _, position in fill[:num_fill]]
        return tuple(plan)

    def _search(self, tags: Sequence[int], budget: int | None) -> tuple[int, ...] | None:
        """Return a plan for `tags` of at most `budget` tokens, or None if none was found within the bounds."""
        plan = self._ancestors(tags)
        counts = Counter(self._index.facet_of[[*tags, *plan]].tolist()) if tags else Counter()
        most, least = self._limits.most, self._limits.least
        if len(tags) + len(plan) > self._limits.max_tags or any(n > most[f] for f, n in counts.items()):
            return None
        limit = (1 << 60) if budget is None else budget

        def settle(cost: int) -> bool:
            self._steps -= 1
            if self._steps < 0 or cost > limit:
                return False
            owed = [f for f, number in enumerate(least) if counts[f] < number]
            if sum(least[f] - counts[f] for f in owed) > self._limits.max_tags - len(tags) - len(plan):
                return False
            if not owed and len(tags) + len(plan) >= self._limits.min_tags:
                return True
            facets = owed[:1] or [f for f, number in enumerate(most) if counts[f] < number]
            for added in self._candidates(facets, {*tags, *plan}):
                facets_added = self._index.facet_of[added].tolist()
                counts.update(facets_added)
                plan.extend(added)
                if (
                    len(tags) + len(plan) <= self._limits.max_tags
                    and all(counts[f] <= most[f] for f in facets_added)
                    and settle(cost + self._cost(added))
                ):
                    return True
                del plan[len(plan) - len(added) :]
                counts.subtract(facets_added)
            return False

        return tuple(plan) if settle(self._cost(plan)) else None

    def _candidates(self, facets: Sequence[int], held: set[int]) -> list[list[int]]:
        """Return what one more tag of `facets` can bring (ancestors first), the cheapest first.

        A group's childless tags are alike but for their length, so its shortest stands for them.
        """
        forest = self._forest
        groups = np.flatnonzero(np.isin(forest.facet, facets))
        num_dragged = forest.dragged(held)[groups].sum(axis=1)
        found = []
        for group in groups[np.argsort(num_dragged, kind="stable")[:_CANDIDATES]].tolist():
            childless, others = forest.split(group, held, _WITH_CHILDREN)
            for position in ([] if childless is None else [childless]) + others:
                added = [*reversed(forest.missing(position, held)), position]
                found.append((len(added), self._cost(added), added))
        found.sort()
        return [added for _, _, added in found[:_CANDIDATES]]

    def _ancestors(self, tags: Sequence[int]) -> list[int]:
        """Return the missing ancestors of `tags`, parents before children."""
        held = set(tags)
        plan: list[int] = []
        for position in tags:
            missing = self._forest.missing(position, held)
            plan += reversed(missing)
            held.update(missing)
        return plan

    def _counts(self, positions: Sequence[int]) -> NDArray[np.int64]:
        return np.bincount(self._index.facet_of[list(positions)], minlength=len(self._least))

    def _cost(self, positions: Iterable[int]) -> int:
        return int(self._costs[list(positions)].sum())

    def _refuse(self, budget: int) -> tuple[int, ...]:
        raise ConstraintError(
            f"no legal answer with parents was found that fits into {budget} more tokens; raise max_tokens or "
            "lower min_tags and the facets' minima"
        )
