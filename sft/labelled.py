"""The labelled products that a run learns from, checked."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hangtag.catalogue.labelled import Dataset, load_dataset
from hangtag.errors import DataError, VocabularyError
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary


def load_both_splits(folder: str | Path) -> Dataset:
    """Return train and validation.

    Raises:
        DataError: a split is missing or empty, or a product has no `tags`.
    """
    dataset = load_dataset(folder, splits=("train", "validation"), say=lambda line: print(line, file=sys.stderr))
    if not dataset.train or not dataset.validation:
        raise DataError(f"{folder}: train or validation holds no product; both are needed")
    return dataset


def load_labelled_splits(folder: str | Path) -> Dataset:
    """Return train and validation, with the limits that the training products keep where the data name none.

    Raises:
        DataError: a split is missing or empty, or a product has no `tags`.
        VocabularyError: a label is not in the vocabulary; lists them with their counts.
    """
    dataset = load_both_splits(folder)
    vocabulary = dataset.vocabulary
    products = (*dataset.train, *dataset.validation)
    check_labels(tag_counts(products), vocabulary, folder)
    return replace(
        dataset, vocabulary=vocabulary.with_some_limits(product.tags or () for product in dataset.train)
    )


def tag_counts(products: Iterable[Product]) -> Counter[str]:
    """Return how many products hold each tag."""
    return Counter(name for product in products for name in product.tags or ())


def check_labels(counts: Counter[str], vocabulary: TagVocabulary, folder: str | Path) -> None:
    """Return if the vocabulary knows all labels of `folder`, given with their counts.

    Raises:
        VocabularyError: it lacks some; lists them.
    """
    unknown = Counter({name: number for name, number in counts.items() if name not in vocabulary})
    if unknown:
        shown = ", ".join(f"{name!r} ({number} times)" for name, number in unknown.most_common(10))
        raise VocabularyError(
            f"{folder}: vocabulary.json lacks {len(unknown)} tags of the training products: {shown}; add them, or "
            "take them out of the products"
        )


def draw(products: Sequence[Product], number: int | None, seed: int) -> list[Product]:
    """Return that many products (None: all) in their own order; a smaller number is a part of a larger one's."""
    order = list(range(len(products)))
    random.Random(seed).shuffle(order)
    return [products[at] for at in sorted(order[:number])]
