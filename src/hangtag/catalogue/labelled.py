"""Labelled catalogues: products whose tags are known, in a folder of splits with a vocabulary, or in one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hangtag.catalogue.products import BadRow, read_catalogue
from hangtag.errors import DataError
from hangtag.formats.rows import Reading
from hangtag.manifest import file_sha256
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

SPLITS = ("train", "validation", "test")
_SPLIT_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".json", ".xlsx", ".parquet")


Say = Callable[[str], None]
"""Hears what was recognised of a file, a line at a time."""


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A labelled dataset: splits of products and the vocabulary. `digest` is one SHA-256 over its files."""

    folder: Path
    train: tuple[Product, ...]
    validation: tuple[Product, ...]
    test: tuple[Product, ...]
    vocabulary: TagVocabulary
    digest: str


def load_dataset(
    data: str | Path, splits: Sequence[str] = SPLITS, *, reading: Reading | None = None, say: Say = _silent
) -> Dataset:
    """Return a labelled dataset: a folder, or one file of labelled products in any format (docs/files.md).

    A folder holds a file for each split (`train.jsonl`, `train.csv` …) and `vocabulary.json`. The products of a
    single file are drawn into splits (`split_of`), and its tags are the vocabulary. `reading` says how the files
    are read, `say` hears what was recognised of them. Splits that are not asked for are empty. Whether every gold
    tag is in the vocabulary is not checked.

    Raises:
        DataError: folder or split is missing, a row is no product, or a product has no `tags`.
        VocabularyError: the vocabulary is refused.
    """
    path = Path(data)
    if not path.exists():
        raise DataError(
            f"{path}: no such folder; expected a labelled dataset (train, validation, test, vocabulary.json), or "
            "a file of labelled products"
        )
    loaded: dict[str, tuple[Product, ...]] = dict.fromkeys(SPLITS, ())
    if path.is_file():
        products = load_labelled(path, reading=reading, say=say)
        drawn: dict[str, list[Product]] = {split: [] for split in SPLITS}
        for product in products:
            drawn[split_of(product)].append(product)
        loaded |= {split: tuple(drawn[split]) for split in splits}
        return Dataset(path, vocabulary=TagVocabulary.build(products), digest=file_sha256(path), **loaded)
    vocabulary = TagVocabulary.from_path(path / "vocabulary.json")
    digests = [file_sha256(path / "vocabulary.json")]
    for split in splits:
        file = split_file(path, split)
        loaded[split] = load_labelled(file, reading=reading, say=say)
        digests.append(file_sha256(file))
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Dataset(path, vocabulary=vocabulary, digest=digest, **loaded)


def split_of(product: Product) -> str:
    """Return the split that a product of a single file is drawn into: 80 % train, 10 % validation, 10 % test.

    It follows from the text, so that equal products are in one split, however the file is ordered.
    """
    tenth = hashlib.sha256(product.text.encode()).digest()[0] * 10 // 256
    return {0: "validation", 1: "test"}.get(tenth, "train")


def dataset_vocabulary(data: str | Path, *, reading: Reading | None = None, say: Say = _silent) -> TagVocabulary:
    """Return the vocabulary of a labelled dataset, see `load_dataset`, which raises the same."""
    if Path(data).is_file():
        return TagVocabulary.build(read_labelled(data, reading=reading, say=say))
    return TagVocabulary.from_path(Path(data) / "vocabulary.json")


def read_split(
    data: str | Path, split: str, *, reading: Reading | None = None, say: Say = _silent
) -> Iterator[Product]:
    """Yield the products of one split of a labelled dataset, see `load_dataset`, which raises the same."""
    if not Path(data).is_file():
        yield from read_labelled(split_file(data, split), reading=reading, say=say)
        return
    for product in read_labelled(data, reading=reading, say=say):
        if split_of(product) == split:
            yield product


def split_file(folder: str | Path, split: str) -> Path:
    """Return the file of a labelled dataset's split. Raises DataError: there is none."""
    for suffix in _SPLIT_SUFFIXES:
        path = Path(folder) / f"{split}{suffix}"
        if path.is_file():
            return path
    raise DataError(
        f"{folder}: no {split}.jsonl, nor one of {', '.join(_SPLIT_SUFFIXES[1:])}; "
        f"expected the splits {', '.join(SPLITS)}"
    )


def load_labelled(path: str | Path, *, reading: Reading | None = None, say: Say = _silent) -> tuple[Product, ...]:
    """Return the labelled products of a catalogue. Raises DataError: see `read_labelled`."""
    return tuple(read_labelled(path, reading=reading, say=say))


def read_labelled(path: str | Path, *, reading: Reading | None = None, say: Say = _silent) -> Iterator[Product]:
    """Yield the labelled products of a catalogue, in order.

    Raises:
        DataError: a row is no product or has no `tags`; file, row and reason are named.
    """
    for row in read_catalogue(path, reading=reading, say=say):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{row.line}: {row.reason}")
        if row.tags is None:
            raise DataError(f"{path}: product {row.id!r} has no `tags`; expected labelled products")
        yield row
