"""The tagger that votes: a product gets the tags of the labelled products nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hangtag.baselines.facet_decoding import (
    BoolArray,
    decode_scores,
    set_f1_of,
    tag_matrix,
    to_taggings,
    tune_thresholds,
)
from hangtag.encoders.nearest import NearestTexts, TextEncoder, default_encoder
from hangtag.product import Product
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

_NEIGHBOURS = (1, 5, 10, 20)
# Cosine distance at which a neighbour's vote falls to 1/e of the nearest one's.
_REACHES = (0.02, 0.05, 0.1)


class NearestTagger:
    """Gives a product what its nearest training products hold, nearer ones counting more.

    A tag's score, and confidence, is the weighted share of the `k` neighbours that hold it; a neighbour
    weighs exp((cosine - best cosine) / reach).
    """

    name = "nearest"

    def __init__(
        self,
        texts: NearestTexts,
        gold: BoolArray,
        vocabulary: TagVocabulary,
        *,
        k: int,
        reach: float,
        thresholds: Mapping[str, float],
    ) -> None:
        """Keep the training texts and their tags, shape (texts, tags)."""
        self.vocabulary = vocabulary
        self.k, self.reach, self.thresholds = k, reach, dict(thresholds)
        self._texts, self._gold = texts, gold

    @classmethod
    def fit(
        cls,
        train: Sequence[Product],
        validation: Sequence[Product],
        vocabulary: TagVocabulary,
        *,
        encoder: TextEncoder | None = None,
    ) -> NearestTagger:
        """Return the tagger with k, reach and thresholds that give the best set-F1 on `validation`.

        `encoder` None stands for `default_encoder`. Cost: one pass of the encoder over both.
        """
        corpus = [product.text for product in train]
        texts = NearestTexts(encoder or default_encoder(corpus), corpus)
        gold = tag_matrix((product.tags or () for product in train), vocabulary)
        wanted = tag_matrix((product.tags or () for product in validation), vocabulary)
        positions, cosines = texts.query([product.text for product in validation], max(_NEIGHBOURS))
        best: tuple[float, int, float, dict[str, float]] | None = None
        for k in sorted({min(k, positions.shape[1]) for k in _NEIGHBOURS}):
            # With one neighbour there is nothing to weigh.
            for reach in _REACHES if k > 1 else _REACHES[:1]:
                scores = votes(positions[:, :k], cosines[:, :k], gold, reach)
                thresholds = tune_thresholds(scores, wanted, vocabulary)
                value = set_f1_of(decode_scores(scores, vocabulary, thresholds), wanted)
                if best is None or value > best[0]:
                    best = value, k, reach, thresholds
        assert best is not None
        _, k, reach, thresholds = best
        return cls(texts, gold, vocabulary, k=k, reach=reach, thresholds=thresholds)

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product."""
        positions, cosines = self._texts.query([product.text for product in products], self.k)
        scores = votes(positions, cosines, self._gold, self.reach)
        return to_taggings(products, scores, self.vocabulary, self.thresholds, model=self.name)


def votes(
    positions: npt.NDArray[np.intp], cosines: npt.NDArray[np.float32], gold: BoolArray, reach: float
) -> npt.NDArray[np.float64]:
    """Return the weighted share of each row's neighbours that hold each tag, shape (rows, tags)."""
    weights = np.exp((cosines.astype(np.float64) - cosines[:, :1]) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    scores = np.zeros((len(positions), gold.shape[1]))
    for neighbour in range(positions.shape[1]):
        scores += weights[:, neighbour, None] * gold[positions[:, neighbour]]
    return scores
