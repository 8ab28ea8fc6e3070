"""How far people agree who tagged the same products."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

TagSet = frozenset[str]


def krippendorff_alpha(products: Iterable[Sequence[TagSet]]) -> float:
    """Return Krippendorff's alpha of tag sets: 1 - observed / expected disagreement; NaN where it is not defined.

    `products[i]` holds the sets that different people gave product i; those with fewer than two are passed over.
    Two sets disagree by their Jaccard distance, 1 - shared / all tags; two empty ones agree. 1 is full agreement,
    0 what chance would give. Not defined with fewer than two sets, or where all sets are the same.
    Cost: the square of the number of different sets.

    Source: Krippendorff (2011), Computing Krippendorff's alpha-reliability; the distance as in Passonneau (2004),
    Computing reliability for coreference annotation. On sets of one tag it is the nominal alpha.

    Examples:
        >>> red, blue = frozenset({"red"}), frozenset({"blue"})
        >>> krippendorff_alpha([(red, red), (blue, blue), (red, blue)])
        0.4444444444444444
    """
    counts: Counter[TagSet] = Counter()
    observed = 0.0
    for given in products:
        if len(given) >= 2:
            counts.update(given)
            observed += 2 * sum(_distance(a, b) for a, b in combinations(given, 2)) / (len(given) - 1)
    num_sets = counts.total()
    pairs = combinations(counts.items(), 2)
    expected = 2 * sum(times * others * _distance(a, b) for (a, times), (b, others) in pairs)
    return 1 - (num_sets - 1) * observed / expected if expected else math.nan


def _distance(a: TagSet, b: TagSet) -> float:
    return 1 - len(a & b) / len(a | b) if a or b else 0.0
