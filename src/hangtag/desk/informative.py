"""Which products teach most: uncertain ones in dense regions, and each batch spread out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_DIMENSIONS = 128
_SEED = 17


def sketch(vectors: Floats) -> Floats:
    """Return vectors of 128 numbers whose cosines are about those of `vectors`, rows of length 1 (or 0).

    The same projection for every call on vectors of one length, so batches may be sketched one by one.

    Source: Johnson and Lindenstrauss (1984).
    """
    draw = np.random.default_rng(_SEED)
    plane = draw.standard_normal((vectors.shape[1], _DIMENSIONS), dtype=np.float32)
    low: Floats = vectors @ plane
    norms = np.linalg.norm(low, axis=1, keepdims=True)
    low /= np.maximum(norms, np.float32(1e-12))
    return low


def information(uncertainty: npt.NDArray[np.floating], vectors: Floats) -> Floats:
    """Return uncertainty x density of each product; density is its mean cosine with all of them, at least 0.

    `vectors` has rows of length 1. One pass: the mean cosine is the product with the mean vector.

    Source: the information density of Settles and Craven (2008), with exponent 1.
    """
    density = np.maximum(vectors @ vectors.mean(axis=0), 0)
    found: Floats = (uncertainty * density).astype(np.float32)
    return found


def spread_out(values: Sequence[float] | Floats, vectors: Floats, size: int) -> list[int]:
    """Return the positions of `size` products, best first: each has the largest value x distance.

    Distance is 1 - the largest cosine with a product chosen before; equal ones fall by position.
    Cost: `size` passes over the vectors.
    """
    values = np.asarray(values, np.float32)
    # A little above 0: even a repeat of what was chosen comes before nothing at all.
    apart = np.ones(len(values), np.float32)
    left = np.ones(len(values), np.bool_)
    chosen: list[int] = []
    for _ in range(min(size, len(values))):
        best = int(np.where(left, values * apart, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        apart = np.minimum(apart, np.maximum(1 - vectors @ vectors[best], np.float32(1e-3)))
    return chosen
