"""How sure a share is that was counted in a random sample."""

from __future__ import annotations

import math

from hangtag.metrics.bootstrap import Estimate

_Z = 1.959963984540054
"""Of the normal distribution 95 % lie within so many standard deviations."""


def wilson(num_right: int, num_drawn: int) -> Estimate:
    """Return the share `num_right / num_drawn` with its 95 % score interval; all NaN where nothing was drawn.

    Each draw has to be independent of the others. Unlike the plain normal interval it holds at few draws and at
    shares near 0 and 1.

    Raises:
        ValueError: more are right than were drawn, or a number is negative.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.

    Examples:
        >>> estimate = wilson(9, 10)
        >>> f"{estimate.value:.2f} [{estimate.low:.3f}, {estimate.high:.3f}]"
        '0.90 [0.596, 0.982]'
    """
    if not 0 <= num_right <= num_drawn:
        raise ValueError(f"{num_right} right of {num_drawn}; expected 0 <= right <= drawn")
    if not num_drawn:
        return Estimate(math.nan, math.nan, math.nan)
    share, square = num_right / num_drawn, _Z * _Z / num_drawn
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / num_drawn + square / (4 * num_drawn)) / (1 + square)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))
