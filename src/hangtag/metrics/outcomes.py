"""Gold and predicted tags of the same products as matrices: what every set metric is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hangtag.vocabulary import TagVocabulary

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """What was right and what was answered, product by product.

    `tags` are the columns: the tags that occur in gold or in a prediction, sorted. `gold` and `predicted` are
    boolean, shape (products, tags). `left_out` counts, per product, the tags of the answer that had to be left
    out of it (unknown, repeated, over a facet's limit): each is one more wrong predicted tag. `is_answered` is
    False for an unparsed answer: it predicts nothing and is never right, not even where gold is empty.
    """

    tags: tuple[str, ...]
    gold: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    left_out: NDArray[np.int64]
    is_answered: NDArray[np.bool_]

    @classmethod
    def from_sets(
        cls,
        gold: Sequence[frozenset[str]],
        predicted: Sequence[frozenset[str] | None],
        left_out: Sequence[int] | None = None,
    ) -> Outcomes:
        """Return the outcomes of aligned sequences: `gold[i]` and `predicted[i]` speak of the same product.

        `None` marks an unparsed answer. `left_out` None means that no answer had to be repaired.

        Raises:
            ValueError: the sequences differ in length, or there is no product.
        """
        left_out = [0] * len(gold) if left_out is None else left_out
        if not len(gold) == len(predicted) == len(left_out):
            raise ValueError(
                f"got {len(gold)} gold sets, {len(predicted)} predictions and {len(left_out)} counts of left-out "
                "tags; expected one of each a product"
            )
        if not gold:
            raise ValueError("no products; expected at least one")
        answers = [frozenset() if tags is None else tags for tags in predicted]
        columns = {tag: column for column, tag in enumerate(sorted(frozenset().union(*gold, *answers)))}
        return cls(
            tags=tuple(columns),
            gold=_matrix(gold, columns),
            predicted=_matrix(answers, columns),
            left_out=np.asarray(left_out, dtype=np.int64),
            is_answered=np.array([tags is not None for tags in predicted]),
        )

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def num_gold(self) -> FloatArray:
        """Gold tags a product."""
        return _row_sums(self.gold)

    @cached_property
    def num_predicted(self) -> FloatArray:
        """Predicted tags a product, those left out of the answer included."""
        return _row_sums(self.predicted) + self.left_out

    @cached_property
    def num_hits(self) -> FloatArray:
        """Tags a product that are both gold and predicted."""
        return _row_sums(self.gold & self.predicted)

    @cached_property
    def tag_statistics(self) -> FloatArray:
        """Hits, predictions and gold of every tag, side by side: shape (products, 3 * tags)."""
        return np.hstack([self.gold & self.predicted, self.predicted, self.gold]).astype(np.float64)

    def only_tags(self, keep: Callable[[str], bool]) -> Outcomes:
        """Return the outcomes seen through the tags that `keep` accepts.

        Left-out tags are dropped: an answer does not say which facet an unknown tag would belong to.
        """
        columns = np.array([column for column, tag in enumerate(self.tags) if keep(tag)], dtype=np.intp)
        return Outcomes(
            tags=tuple(self.tags[column] for column in columns),
            gold=self.gold[:, columns],
            predicted=self.predicted[:, columns],
            left_out=np.zeros_like(self.left_out),
            is_answered=self.is_answered,
        )

    def with_ancestors(self, vocabulary: TagVocabulary) -> Outcomes:
        """Return the outcomes with the parents of every gold and predicted tag added, up to the roots."""
        return Outcomes.from_sets(
            [_closure(row, self.tags, vocabulary) for row in self.gold],
            [
                _closure(row, self.tags, vocabulary) if is_answered else None
                for row, is_answered in zip(self.predicted, self.is_answered, strict=True)
            ],
            self.left_out.tolist(),
        )

    def sum(self, values: NDArray[np.float64], weights: FloatArray | None) -> FloatArray:
        """Return the sum of per-product `values` (products, …), each product counted `weights` times.

        `weights` has shape (products,) or (resamples, products); the result loses the products' axis.
        """
        return np.asarray(values.sum(axis=0) if weights is None else weights @ values, dtype=np.float64)

    def mean(self, values: NDArray[np.float64], weights: FloatArray | None) -> FloatArray:
        """Return the mean of per-product `values` (products,); NaN where no product has any weight."""
        return ratio(self.sum(values, weights), self.num_counted(weights), empty=np.nan)

    def num_counted(self, weights: FloatArray | None) -> FloatArray:
        """Return the number of products, each counted `weights` times."""
        return np.asarray(float(len(self)) if weights is None else weights.sum(axis=-1))


def ratio(numerator: FloatArray, denominator: FloatArray, *, empty: float | FloatArray) -> FloatArray:
    """Return numerator / denominator, and `empty` where the denominator is 0."""
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, empty)


def _row_sums(matrix: NDArray[np.bool_]) -> FloatArray:
    return np.asarray(matrix.sum(axis=1), dtype=np.float64)


def _matrix(sets: Iterable[frozenset[str]], columns: dict[str, int]) -> NDArray[np.bool_]:
    rows = list(sets)
    matrix = np.zeros((len(rows), len(columns)), dtype=np.bool_)
    for row, tags in enumerate(rows):
        matrix[row, [columns[tag] for tag in tags]] = True
    return matrix


def _closure(row: NDArray[np.bool_], tags: tuple[str, ...], vocabulary: TagVocabulary) -> frozenset[str]:
    held = [tags[column] for column in np.flatnonzero(row)]
    parents = (parent for tag in held if tag in vocabulary for parent in vocabulary.ancestors(tag))
    return frozenset([*held, *parents])
