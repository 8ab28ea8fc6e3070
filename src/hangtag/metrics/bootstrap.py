"""How sure a figure is: bootstrap over products, plain and paired."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hangtag.metrics.outcomes import FloatArray, Outcomes

LEVEL = 0.95
NUM_RESAMPLES = 1000
_CELLS = 4_000_000

Figure = Callable[[FloatArray | None], Any]
"""Maps weights (some, num_products) to values (some,); None to the one value over the products as they are."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; all three are NaN where the figure is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """By how much one figure exceeds another on the same products, its 95 % interval and two-sided p."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Resampled:
    """Figures by name: their values over some products, and over resamples of these, shape (num_resamples,)."""

    values: dict[str, float]
    draws: dict[str, FloatArray]

    def estimate(self, name: str, *, share_of: int | None = None) -> Estimate:
        """Return a figure with its interval, see `estimate`."""
        return estimate(self.values[name], self.draws[name], share_of=share_of)

    def exceeds(self, other: Resampled) -> dict[str, Difference]:
        """Return by how much the figures of both exceed the other's, by name.

        Both must come from `resample` with the same products in the same order, seed and number of resamples.
        """
        return {
            name: difference(value - other.values[name], self.draws[name] - other.draws[name])
            for name, value in self.values.items()
            if name in other.values
        }


def bind(outcomes: Outcomes, *metrics: Callable[[Outcomes, FloatArray | None], Any]) -> dict[str, Figure]:
    """Return metrics of `outcomes` as figures, by their own names."""
    return {metric.__name__: functools.partial(metric, outcomes) for metric in metrics}


def resample_weights(num_products: int, *, num_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each product is drawn in each resample, shapes (some, num_products), `num_resamples` rows
    in all.

    A resample draws `num_products` products with replacement. The same number of products and seed give the
    same weights, which is what makes comparisons paired. Parts bound the memory at about 32 MB each.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // num_products)
    for start in range(0, num_resamples, rows):
        num_rows = min(rows, num_resamples - start)
        drawn = generator.integers(0, num_products, size=(num_rows, num_products))
        drawn += np.arange(num_rows)[:, None] * num_products
        counts = np.bincount(drawn.ravel(), minlength=num_rows * num_products)
        yield counts.reshape(num_rows, num_products).astype(np.float64)


def resample(
    figures: Mapping[str, Figure], num_products: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Resampled:
    """Return each figure over the products, and over resamples of them."""
    parts: dict[str, list[FloatArray]] = {name: [] for name in figures}
    for weights in resample_weights(num_products, num_resamples=num_resamples, seed=seed):
        for name, figure in figures.items():
            parts[name].append(np.atleast_1d(figure(weights)))
    return Resampled(
        values={name: float(figure(None)) for name, figure in figures.items()},
        draws={name: np.concatenate(found) for name, found in parts.items()},
    )


def estimate(value: float, draws: FloatArray, *, share_of: int | None = None) -> Estimate:
    """Return a figure with its percentile interval; resamples in which it is not defined (NaN) are passed over.

    `share_of` is the number of products where the figure is the share of them that is right. If none or all of
    them are, resampling would claim certainty; the interval is then the exact binomial one.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; Clopper and Pearson,
    "The use of confidence or fiducial limits illustrated in the case of the binomial" (1934).
    """
    defined = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(defined):
        return Estimate(float(value), float("nan"), float("nan"))
    if share_of and value in (0.0, 1.0):
        away = 1 - ((1 - LEVEL) / 2) ** (1 / share_of)
        return Estimate(float(value), max(0.0, value - away), min(1.0, value + away))
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


def difference(value: float, draws: FloatArray) -> Difference:
    """Return the difference of two figures; `draws` holds it in each resample, both over the same products.

    p is twice the smaller share of resamples on either side of 0 (0 itself counts on both sides), with one
    resample added to each count, at most 1: it is never 0, and agrees with the interval.
    Source: Efron and Tibshirani (1993), chapter 15; the added one is Davison and Hinkley (1997), section 4.2.
    """
    plain = estimate(value, draws)
    defined = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(defined):
        return Difference(plain.value, plain.low, plain.high, float("nan"))
    smaller = min((defined <= 0).sum(), (defined >= 0).sum())
    p = min(1.0, 2 * float(smaller + 1) / (len(defined) + 1))
    return Difference(plain.value, plain.low, plain.high, p)
