from __future__ import annotations

import difflib
import unicodedata
from collections import Counter

import pytest

from hangtag import Dataset, load_dataset
from hangtag.metrics import is_chinese
from hangtag.sample import sample_folder


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_dataset(sample_folder())


def test_sizes(sample: Dataset) -> None:
    assert len(sample.train) == 160
    assert len(sample.validation) == 40
    assert len(sample.test) >= 40
    products = sample.train + sample.validation + sample.test
    assert len(products) >= 240
    assert len({product.id for product in products}) == len(products)
    assert sum(is_chinese(product.text) for product in products) >= 40
    assert len(sample.vocabulary.facet_names) >= 6
    assert 110 <= len(sample.vocabulary) <= 130


def test_labels_are_consistent(sample: Dataset) -> None:
    vocabulary = sample.vocabulary
    used: Counter[str] = Counter()
    for product in sample.train + sample.validation + sample.test:
        tags = product.tags or ()
        assert tags == vocabulary.in_order(tags), product.id
        used.update(tags)
        held = Counter(vocabulary[tag].facet for tag in tags)
        for facet, limits in vocabulary.facets.items():
            assert limits.min <= held[facet] <= (limits.max or 99), (product.id, facet)
        for tag in tags:
            assert set(vocabulary.ancestors(tag)) <= set(tags), (product.id, tag)
    assert used.keys() == set(vocabulary.names)
    train = Counter(tag for product in sample.train for tag in product.tags or ())
    assert min(train[tag] for tag in vocabulary.names) >= 2


def test_aliases_are_unambiguous(sample: Dataset) -> None:
    names = Counter(
        unicodedata.normalize("NFC", name).casefold()
        for tag in sample.vocabulary
        for name in (tag.tag, *tag.aliases)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_near_duplicates_across_splits(sample: Dataset) -> None:
    splits = (sample.train, sample.validation, sample.test)
    for number, left in enumerate(splits):
        for right in splits[number + 1 :]:
            for first in left:
                matcher = difflib.SequenceMatcher(None, "", first.title)
                for second in right:
                    matcher.set_seq1(second.title)
                    close = matcher.quick_ratio() > 0.8 and matcher.ratio() > 0.8
                    assert not close, (first.id, second.id)
