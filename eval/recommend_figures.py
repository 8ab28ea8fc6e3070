"""Figures of arms that rank the same things for the same users, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag import metrics

Values = Mapping[str, NDArray[np.float64]]
"""Metrics by name, a value a user; NaN where a user has nothing to find."""


def compared(arms: Mapping[str, Values], own: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return each arm's figures and by how much the arm `own` exceeds it, over users with something to find."""
    first = next(iter(next(iter(arms.values())).values()))
    has_gold = ~np.isnan(first)
    number = int(has_gold.sum())
    drawn = {
        arm: metrics.resample(
            {name: metrics.mean_over(column[has_gold]) for name, column in values.items()},
            number,
            num_resamples=resamples,
            seed=seed,
        )
        for arm, values in arms.items()
    }
    return {
        "num_users": number,
        "arms": {
            arm: {
                "figures": {name: asdict(held.estimate(name)) for name in held.values},
                "exceeded_by": None
                if arm == own
                else {name: asdict(change) for name, change in drawn[own].exceeds(held).items()},
            }
            for arm, held in drawn.items()
        },
    }
