"""What the scores of sources are worth: one weight a score, fitted, and from there to a tag's log-odds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hangtag.baselines.facet_decoding import sigmoid
from hangtag.constraint import Evidence
from hangtag.errors import DataError
from hangtag.evidence.source import Source
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

Floats = npt.NDArray[np.float64]


class Fusion(BaseModel):
    """Weights of scores: a tag's log-odds are `bias` plus the weighted sum of its scores.

    `weights` go by "source.column", `by_facet` are departures from them in one facet, where "bias" may stand too.
    `threshold` is the probability from which a tag is given where nothing but evidence speaks. Before a language
    model, log-odds are multiplied by `sharpness`, and "no further tag" has those of the threshold: the larger,
    the less the model's own choice counts, and the less many improbable tags weigh against the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: dict[str, float]
    bias: float = 0.0
    by_facet: dict[str, dict[str, float]] = Field(default_factory=dict)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    sharpness: float = Field(default=1.0, ge=0)
    fitted_on: dict[str, int] = Field(default_factory=dict)
    """Products by catalogue."""

    @property
    def sources(self) -> list[str]:
        """The names of the sources that have a weight, sorted."""
        return sorted({name.partition(".")[0] for name in self.weights})

    @field_validator("weights")
    @classmethod
    def _any(cls, weights: dict[str, float]) -> dict[str, float]:
        if not weights:
            raise ValueError("no weights")
        return weights

    @classmethod
    def read(cls, path: Path) -> Fusion:
        """Return the weights in a file. Raises DataError: there are none, or it is damaged."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"])
            raise DataError(
                f"{path}: no weights of evidence ({reason}); expected JSON with `weights`, see docs/evidence.md"
            ) from None


class WeighedSources:
    """Sources with their weights: from products to log-odds, and to what leads a decoder."""

    def __init__(self, vocabulary: TagVocabulary, sources: Sequence[Source], fusion: Fusion) -> None:
        """Bind them. Raises DataError: a source or a score has no weight, a weight no source, a facet no tag."""
        self.vocabulary = vocabulary
        self.sources = tuple(sources)
        self.fusion = fusion
        columns = [f"{source.name}.{column}" for source in sources for column in source.columns]
        for name in {*columns} ^ fusion.weights.keys():
            which = "no source gives it" if name in fusion.weights else "it has no weight"
            raise DataError(
                f"evidence {name!r}: {which}; fit the weights for the sources in use: python -m sft.fuse"
            )
        for facet, own in fusion.by_facet.items():
            for name in own.keys() - {*columns, "bias"}:
                raise DataError(f"evidence {name!r} of the facet {facet!r}: no source gives it")
            if facet not in vocabulary.facet_names:
                raise DataError(f"evidence for the facet {facet!r}, which is not in the vocabulary")
        self._bias = np.array([_own(fusion, tag.facet).get("bias", fusion.bias) for tag in vocabulary])
        self._weights = np.array(
            [[_own(fusion, tag.facet).get(name, fusion.weights[name]) for name in columns] for tag in vocabulary]
        )

    def log_odds(self, products: Sequence[Product]) -> Floats:
        """Return each tag's log-odds, shape (products, tags)."""
        scores = np.concatenate([source.scores(products) for source in self.sources], axis=2)
        odds: Floats = np.einsum("ptc,tc->pt", scores, self._weights) + self._bias
        return odds

    def probabilities(self, products: Sequence[Product]) -> Floats:
        """Return each tag's probability, shape (products, tags)."""
        return sigmoid(self.log_odds(products))

    def __call__(self, products: Sequence[Product]) -> list[Evidence]:
        """Return what leads the decoder of each product."""
        threshold = math.log(self.fusion.threshold / (1 - self.fusion.threshold))
        sharpness = self.fusion.sharpness
        return [Evidence(odds, threshold, sharpness=sharpness) for odds in self.log_odds(products)]


def _own(fusion: Fusion, facet: str) -> Mapping[str, float]:
    return fusion.by_facet.get(facet, {})
