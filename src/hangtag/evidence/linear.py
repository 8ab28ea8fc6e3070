"""Evidence from a linear model: what the words of labelled products told of their tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hangtag.baselines.linear import LinearTagger
from hangtag.evidence.source import Scores
from hangtag.product import Product


class LinearSource:
    """The log-odds of the linear tagger: TF-IDF and one logistic regression a tag."""

    name = "linear"
    columns = ("log_odds",)

    def __init__(self, tagger: LinearTagger) -> None:
        """Take a fitted tagger."""
        self._tagger = tagger

    def scores(self, products: Sequence[Product]) -> Scores:
        """See `Source.scores`."""
        scores: Scores = self._tagger.log_odds(products)[:, :, None].astype(np.float32)
        return scores
