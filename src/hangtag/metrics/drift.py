"""Whether the tags given today are those of the training data: the population-stability index of their shares."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

NUM_BINS = 20
WINDOW = 2000
_LEAST_TAGS = 200
_SMOOTHING = 0.5


def population_stability(expected: Sequence[float], observed: Sequence[float]) -> float:
    """Return the population-stability index of two counts over the same bins, 0 or more.

    The sum over bins of (observed share - expected share) * ln(observed share / expected share); every bin gets
    half a count more, so that empty ones stay finite. Below 0.1 is usually read as stable, above 0.25 as moved.
    With few observations it is too high by about (bins - 1) / observations. 0 where a side is empty.

    Raises:
        ValueError: the two differ in length.

    Source: Siddiqi, "Credit Risk Scorecards" (2006), chapter 10.
    """
    if len(expected) != len(observed):
        raise ValueError(f"{len(expected)} and {len(observed)} bins; expected equally many")
    if not sum(expected) or not sum(observed):
        return 0.0
    whole = [sum(counts) + _SMOOTHING * len(counts) for counts in (expected, observed)]
    index = 0.0
    for before, now in zip(expected, observed, strict=True):
        before_share, now_share = (before + _SMOOTHING) / whole[0], (now + _SMOOTHING) / whole[1]
        index += (now_share - before_share) * math.log(now_share / before_share)
    return max(0.0, index)


class TagDrift:
    """The index of the last taggings' tags against training counts.

    Tags are gathered, most frequent first, into at most `NUM_BINS` bins of about equal expected counts; tags
    without a count share a bin of their own. Over the last `window` taggings.
    """

    def __init__(self, counts: Mapping[str, int], *, window: int = WINDOW) -> None:
        self._window = window
        self._last: deque[tuple[int, ...]] = deque()
        self._bin_of: dict[str, int] = {}
        self._expected: list[int] = []
        share = max(1.0, sum(counts.values()) / NUM_BINS)
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            if not self._expected or self._expected[-1] >= share:
                self._expected.append(0)
            self._expected[-1] += count
            self._bin_of[name] = len(self._expected) - 1
        self._expected.append(0)
        self._observed: Counter[int] = Counter()

    def add(self, tags: Iterable[str]) -> None:
        """Take one tagging's tags in."""
        bins = tuple(self._bin_of.get(name, len(self._expected) - 1) for name in tags)
        self._last.append(bins)
        self._observed.update(bins)
        if len(self._last) > self._window:
            self._observed.subtract(self._last.popleft())

    def value(self) -> float | None:
        """Return the index, None before enough tags were given to say."""
        if self._observed.total() < _LEAST_TAGS or not sum(self._expected):
            return None
        return population_stability(
            self._expected, [self._observed[number] for number in range(len(self._expected))]
        )
