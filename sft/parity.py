"""Whether an exported model tags as the trained one does, engine by engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hangtag.errors import TrainingError
from hangtag.tagging import Tagging


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far taggings may differ: the least share of products with the same tags in the same order, and the
    largest difference of a confidence among them."""

    identical: float
    confidence: float


# The same weights in the same number format: only the order of sums differs.
EXACT = Tolerance(identical=1.0, confidence=1e-3)
# Merged weights rounded to 16 bits, against weights and adapter apart in 32: near ties fall the other way, in a
# model that has hardly been trained for one product in ten.
ROUNDED = Tolerance(identical=0.75, confidence=0.1)


@dataclass(frozen=True, slots=True)
class Parity:
    """How the taggings of two ways to run a model compare on the same products."""

    one: str
    other: str
    num_products: int
    identical: float
    """Share of products with the same tags in the same order."""
    confidence_difference: float
    """Largest difference of a confidence among those."""

    @classmethod
    def of(cls, one: tuple[str, Sequence[Tagging]], other: tuple[str, Sequence[Tagging]]) -> Parity:
        """Compare taggings of the same products, each given with the name of the way they came about."""
        pairs = list(zip(one[1], other[1], strict=True))
        same = [(a, b) for a, b in pairs if a.names == b.names and a.status == b.status]
        largest = max(
            (
                abs((x.confidence or 0.0) - (y.confidence or 0.0))
                for a, b in same
                for x, y in zip(a.tags, b.tags, strict=True)
            ),
            default=0.0,
        )
        return cls(one[0], other[0], len(pairs), len(same) / len(pairs) if pairs else 1.0, round(largest, 6))

    def check(self, tolerance: Tolerance) -> dict[str, object]:
        """Return the comparison with its tolerance, for the manifest.

        Raises:
            TrainingError: the taggings differ by more than that.
        """
        if self.identical < tolerance.identical or self.confidence_difference > tolerance.confidence:
            raise TrainingError(
                f"parity: {self.one} and {self.other} agree on {self.identical:.1%} of {self.num_products} "
                f"products (expected {tolerance.identical:.1%}), confidences within "
                f"{self.confidence_difference:.2g} (expected {tolerance.confidence:.2g}); nothing was exported"
            )
        return asdict(self) | {"tolerance": asdict(tolerance)}
