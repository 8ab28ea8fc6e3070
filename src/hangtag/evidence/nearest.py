"""Evidence from labelled products: what the ones with the nearest texts hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hangtag.baselines.facet_decoding import tag_matrix
from hangtag.baselines.nearest import votes
from hangtag.encoders.nearest import NearestTexts, TextEncoder, default_encoder
from hangtag.evidence.source import Scores
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

_NEIGHBOURS = 10
# Cosine distance at which a neighbour's vote falls to 1/e of the nearest one's.
_REACH = 0.05
# Keeps the log-odds of a unanimous vote finite: about what ten neighbours can say.
_SMOOTHING = 0.05


class NearestSource:
    """What the ten labelled products nearest to a product hold.

    `vote` is the log-odds of the weighted share of the neighbours that hold the tag, smoothed; `near_vote` the
    same times the cosine of the nearest one, `broad_vote` times the logarithm of the number of labelled products:
    votes of far neighbours, and of the best among few, say less.
    """

    name = "nearest"
    columns = ("vote", "near_vote", "broad_vote")

    def __init__(
        self, vocabulary: TagVocabulary, examples: Sequence[Product], encoder: TextEncoder | None = None
    ) -> None:
        """Embed the labelled products. `encoder` None stands for `default_encoder`."""
        texts = [example.text for example in examples]
        self._texts = NearestTexts(encoder or default_encoder(texts), texts)
        self._gold = tag_matrix((example.tags or () for example in examples), vocabulary)

    def scores(self, products: Sequence[Product]) -> Scores:
        """See `Source.scores`. Cost: one forward pass of the encoder."""
        positions, cosines = self._texts.query([product.text for product in products], _NEIGHBOURS)
        shares = votes(positions, cosines, self._gold, _REACH)
        odds = np.log(shares + _SMOOTHING) - np.log(1 - shares + _SMOOTHING)
        scores: Scores = np.stack((odds, odds * cosines[:, :1], odds * np.log(len(self._gold))), axis=2).astype(
            np.float32
        )
        return scores
