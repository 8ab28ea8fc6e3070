"""Labelled catalogues: products whose tags are known, in a folder of splits with their vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hangtag.catalogue.products import BadRow, read_catalogue
from hangtag.errors import DataError
from hangtag.manifest import file_sha256
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A labelled dataset: splits of products and the vocabulary. `digest` is one SHA-256 over its files."""

    folder: Path
    train: tuple[Product, ...]
    validation: tuple[Product, ...]
    test: tuple[Product, ...]
    vocabulary: TagVocabulary
    digest: str


def load_dataset(folder: str | Path, splits: Sequence[str] = SPLITS) -> Dataset:
    """Return a labelled dataset: `SPLIT.jsonl` or `SPLIT.jsonl.gz` for each split, and `vocabulary.json`.

    Splits that are not asked for are empty. Whether every gold tag is in the vocabulary is not checked here.

    Raises:
        DataError: folder or split is missing, a row is no product, or a product has no `tags`.
        VocabularyError: the vocabulary is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected a labelled dataset (train, validation, test, vocabulary.json)"
        )
    vocabulary = TagVocabulary.from_path(folder / "vocabulary.json")
    loaded: dict[str, tuple[Product, ...]] = dict.fromkeys(SPLITS, ())
    digests = [file_sha256(folder / "vocabulary.json")]
    for split in splits:
        path = split_file(folder, split)
        loaded[split] = load_labelled(path)
        digests.append(file_sha256(path))
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Dataset(folder, vocabulary=vocabulary, digest=digest, **loaded)


def split_file(folder: str | Path, split: str) -> Path:
    """Return the file of a labelled dataset's split. Raises DataError: there is none."""
    for path in (Path(folder) / f"{split}.jsonl", Path(folder) / f"{split}.jsonl.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: no {split}.jsonl or {split}.jsonl.gz; expected the splits {', '.join(SPLITS)}")


def load_labelled(path: str | Path) -> tuple[Product, ...]:
    """Return the labelled products of a catalogue. Raises DataError: see `read_labelled`."""
    return tuple(read_labelled(path))


def read_labelled(path: str | Path) -> Iterator[Product]:
    """Yield the labelled products of a catalogue, in order.

    Raises:
        DataError: a row is no product or has no `tags`; file, row and reason are named.
    """
    for row in read_catalogue(path):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{row.line}: {row.reason}")
        if row.tags is None:
            raise DataError(f"{path}: product {row.id!r} has no `tags`; expected labelled products")
        yield row
