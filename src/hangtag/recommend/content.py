"""Items that are alike in tags or words: how near each is to what a user took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.recommend.history import History
from hangtag.recommend.items import idf, unit_rows

_BLOCK = 256
_DENSE_COLUMNS = 600


@dataclass(frozen=True)
class Content:
    """Items as unit vectors of idf-weighted tags, or words, shape (num_items, num_columns).

    Source: Salton and Buckley, "Term-weighting approaches in automatic text retrieval" (1988).
    """

    vectors: sp.csr_matrix = field(repr=False)

    @classmethod
    def of(cls, held: sp.csr_matrix) -> Content:
        """Return the content behind `Items.has_tag` or `Items.has_word`."""
        return cls(unit_rows(held, idf(held)))

    def scores(self, history: History) -> NDArray[np.float32]:
        """Return the cosine of each item with the user's recency-weighted profile, (num_users, num_items)."""
        profile = unit_rows(history.recent @ self.vectors, np.ones(self.vectors.shape[1], np.float32))
        found = profile @ self.vectors.T.tocsr()
        dense: NDArray[np.float32] = found.toarray()
        return dense

    def neighbours(self, num_neighbours: int) -> sp.csr_matrix:
        """Return each item's nearest other items and their cosines, shape (num_items, num_items)."""
        size = self.vectors.shape[0]
        count = min(num_neighbours, size - 1)
        # Few columns mean that most items share one: a dense product is then the faster one.
        is_dense = self.vectors.shape[1] <= _DENSE_COLUMNS
        other = self.vectors.toarray().T if is_dense else self.vectors.T.tocsr()
        blocks = []
        for start in range(0, size, _BLOCK):
            part = self.vectors[start : start + _BLOCK]
            cosine = part.toarray() @ other if is_dense else (part @ other).toarray()
            number = len(cosine)
            cosine[np.arange(number), start + np.arange(number)] = 0
            nearest = (
                np.argpartition(-cosine, count - 1, axis=1)[:, :count] if count else np.empty((number, 0), int)
            )
            values = np.take_along_axis(cosine, nearest, 1).ravel()
            rows = np.repeat(np.arange(number), count)
            blocks.append(sp.csr_matrix((values, (rows, nearest.ravel())), shape=(number, size)))
        found = sp.vstack(blocks, format="csr").astype(np.float32)
        found.eliminate_zeros()
        return found
