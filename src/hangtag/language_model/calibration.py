"""From a model's confidence to the precision that was observed at it, by facet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hangtag.errors import DataError, MissingExtra
from hangtag.manifest import write_json
from hangtag.tagging import Tagging

# A facet with fewer tags than this on validation shares the map of all: a step function through a few points
# would be noise.
_FEWEST = 100


class IsotonicMap(BaseModel):
    """A rising function given by points, linear between them and constant outside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: tuple[float, ...]
    precision: tuple[float, ...]

    def __call__(self, confidence: float) -> float:
        """Return the precision observed at `confidence`."""
        return float(np.interp(confidence, self.confidence, self.precision))


class Calibration:
    """Maps confidences of tags to observed precision: one isotonic map a facet, one for all other facets."""

    def __init__(self, facets: Mapping[str, IsotonicMap], other: IsotonicMap) -> None:
        """Keep fitted maps."""
        self._facets, self._other = dict(facets), other

    @classmethod
    def fit(cls, outcomes: Iterable[tuple[str, float, bool]]) -> Calibration:
        """Return the maps for tags given as (facet, confidence, whether the tag was right).

        The tags should come from products that were not trained on. A facet with fewer than 100 tags takes the
        map of all. Deterministic.

        Raises:
            DataError: there is no tag.
            MissingExtra: scikit-learn is not installed.

        Source: isotonic regression, Zadrozny and Elkan 2002, as in scikit-learn's `IsotonicRegression`.
        """
        by_facet: dict[str, list[tuple[float, bool]]] = {}
        for facet, confidence, is_right in outcomes:
            by_facet.setdefault(facet, []).append((confidence, is_right))
        everything = [pair for pairs in by_facet.values() for pair in pairs]
        if not everything:
            raise DataError("no tag was given to any validation product, so confidences cannot be calibrated")
        maps = {facet: _isotonic(pairs) for facet, pairs in by_facet.items() if len(pairs) >= _FEWEST}
        return cls(maps, _isotonic(everything))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Return the calibration that `save` wrote.

        Raises:
            DataError: the file is missing or of another form.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            facets = {name: IsotonicMap.model_validate(points) for name, points in document["facets"].items()}
            return cls(facets, IsotonicMap.model_validate(document["other"]))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}; expected a run's calibration.json") from None
        except (ValueError, LookupError, TypeError, AttributeError, ValidationError) as error:
            raise DataError(f"{path}: not a calibration ({str(error).splitlines()[0]:.200})") from None

    def save(self, path: str | Path) -> None:
        """Write the maps as JSON."""
        write_json(path, self._document())

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all maps."""
        return hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode()).hexdigest()

    def calibrated(self, facet: str, confidence: float) -> float:
        """Return the precision observed at `confidence` for tags of `facet`."""
        return self._facets.get(facet, self._other)(confidence)

    def apply(self, tagging: Tagging) -> Tagging:
        """Return the tagging with calibrated confidences; tags without one stay as they are."""
        tags = tuple(
            tag
            if tag.confidence is None
            else tag.model_copy(update={"confidence": self.calibrated(tag.facet, tag.confidence)})
            for tag in tagging.tags
        )
        return tagging.model_copy(update={"tags": tags})

    def _document(self) -> dict[str, Any]:
        facets = {name: points.model_dump() for name, points in sorted(self._facets.items())}
        return {"facets": facets, "other": self._other.model_dump()}


def _isotonic(pairs: list[tuple[float, bool]]) -> IsotonicMap:
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "eval") from None
    confidences, is_right = zip(*pairs, strict=True)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(confidences, is_right)
    points = [fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()]
    # Python's own rounding keeps the file short; it moves no confidence by more than 1e-6.
    confidence, precision = ([round(value, 6) for value in column] for column in points)
    return IsotonicMap(confidence=tuple(confidence), precision=tuple(precision))
