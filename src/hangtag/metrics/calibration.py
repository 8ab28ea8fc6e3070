"""What confidences are worth: calibration error, reliability, and the share of tags that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hangtag.metrics.outcomes import FloatArray, ratio

NUM_BINS = 15


@dataclass(frozen=True)
class Confidences:
    """All predicted tags that carry a confidence, most confident first; three arrays of equal length.

    `product` is the index of the tag's product, `confidence` lies in [0, 1], `is_right` says whether the tag is
    gold. Tags left out of an answer carry no confidence and are not here.
    """

    product: NDArray[np.intp]
    confidence: FloatArray
    is_right: NDArray[np.bool_]
    num_products: int

    @classmethod
    def from_scores(
        cls, gold: Sequence[frozenset[str]], scores: Sequence[Mapping[str, float] | None]
    ) -> Confidences:
        """Return the confidences of aligned sequences: `scores[i]` maps each predicted tag of product i.

        Raises:
            ValueError: the two sequences differ in length.
        """
        rows = [
            (index, confidence, tag in tags)
            for index, (tags, scored) in enumerate(zip(gold, scores, strict=True))
            for tag, confidence in (scored or {}).items()
        ]
        rows.sort(key=lambda row: -row[1])
        return cls(
            product=np.array([row[0] for row in rows], dtype=np.intp),
            confidence=np.array([row[1] for row in rows], dtype=np.float64),
            is_right=np.array([row[2] for row in rows], dtype=np.bool_),
            num_products=len(gold),
        )

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of predicted tags: how many, their mean confidence, and the share that is right."""

    num_tags: int
    confidence: float
    precision: float


def reliability(confidences: Confidences, *, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Return the reliability curve: bins of (nearly) equally many tags, least confident first.

    Tags of equal confidence share a bin, so that the order of products is irrelevant; there may be fewer bins
    than asked for, and none where no tag carries a confidence.
    """
    bins = _bins(confidences, num_bins)
    found = []
    for number in np.unique(bins):
        held = bins == number
        found.append(
            ReliabilityBin(
                num_tags=int(held.sum()),
                confidence=float(confidences.confidence[held].mean()),
                precision=float(confidences.is_right[held].mean()),
            )
        )
    return found[::-1]


def calibration_error(
    confidences: Confidences, weights: FloatArray | None = None, *, num_bins: int = NUM_BINS
) -> FloatArray:
    """Return the expected calibration error: the mean over tags of their bin's |precision - mean confidence|.

    In [0, 1], lower is better, 0 is perfect. Bins hold equally many tags (see `reliability`) and stay where they
    are when products are resampled, shape of `weights` as in `hangtag.metrics.sets`. Resampling noise makes an
    absolute value larger, so an interval may lie somewhat above a small value. NaN without any confidence.
    Source: Nixon et al., "Measuring calibration in deep learning" (2019), the adaptive (equal-mass) scheme.
    """
    bins = _bins(confidences, num_bins)
    size = int(bins.max(initial=-1)) + 1
    gaps = np.zeros((confidences.num_products, size))
    np.add.at(gaps, (confidences.product, bins), confidences.is_right - confidences.confidence)
    held = np.bincount(confidences.product, minlength=confidences.num_products).astype(np.float64)
    if weights is None:
        weights = np.ones(confidences.num_products)
    return ratio(np.abs(weights @ gaps).sum(axis=-1), weights @ held, empty=np.nan)


def coverage_at(confidences: Confidences, precision: float, weights: FloatArray | None = None) -> FloatArray:
    """Return the largest share of predicted tags that can be accepted at the given precision or better.

    Tags are accepted from the most confident down to a threshold, chosen on the very same products; tags of
    equal confidence go together. In [0, 1], higher is better; 0 where not even the most confident tags reach
    the precision. It says nothing of gold tags that are not predicted: read it beside recall. NaN without any
    confidence. Cost: memory of resamples * tags.
    """
    if weights is None:
        weights = np.ones(confidences.num_products)
    if not len(confidences):
        return np.full(weights.shape[:-1], np.nan)
    counted = np.cumsum(weights[..., confidences.product], axis=-1)
    right = np.cumsum(weights[..., confidences.product] * confidences.is_right, axis=-1)
    # A threshold can only lie between tags of different confidence.
    ends = np.flatnonzero(np.append(np.diff(confidences.confidence) != 0, True))
    # The slack keeps 19 of 20 at 0.95, which is not a binary fraction.
    is_reached = right[..., ends] >= precision * counted[..., ends] - 1e-9
    accepted = np.where(is_reached, counted[..., ends], 0.0).max(axis=-1)
    return ratio(accepted, counted[..., -1], empty=np.nan)


def risk_coverage(confidences: Confidences, *, num_points: int = 100) -> list[tuple[float, float]]:
    """Return (coverage, risk) pairs, coverage rising to 1: risk is the share of wrong tags among those accepted.

    Acceptance is as in `coverage_at`; at most `num_points` thresholds are kept, evenly spaced.
    """
    if not len(confidences):
        return []
    ends = np.flatnonzero(np.append(np.diff(confidences.confidence) != 0, True))
    if len(ends) > num_points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, num_points).round().astype(int))]
    risk = 1 - np.cumsum(confidences.is_right)[ends] / (ends + 1)
    return [(float(end + 1) / len(confidences), float(r)) for end, r in zip(ends, risk, strict=True)]


def _bins(confidences: Confidences, num_bins: int) -> NDArray[np.intp]:
    """Return the bin of every tag, 0 for the most confident."""
    size = len(confidences)
    ranks = np.arange(size)
    is_new = np.append(True, np.diff(confidences.confidence) != 0)[:size]
    first = np.maximum.accumulate(np.where(is_new, ranks, 0)) if size else ranks
    return np.asarray(first * num_bins // max(size, 1), dtype=np.intp)
