"""What is to be reviewed: the queue of a catalogue run with its sample of accepted products, or labelled data."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hangtag.bulk.review import ACCEPTED_SAMPLE
from hangtag.catalogue.labelled import read_labelled, split_file
from hangtag.errors import DataError
from hangtag.product import Product
from hangtag.tagging import ScoredTag
from hangtag.vocabulary import TagVocabulary

_LISTS = ("attributes", "tags", "confidences")


@dataclass(frozen=True, slots=True)
class Entry:
    """One product to review: its tags with confidences, and where they come from.

    `is_sample` marks one of the products drawn from those that were accepted without a look.
    """

    product: Product
    tags: tuple[ScoredTag, ...]
    status: str = "ok"
    is_sample: bool = False

    @property
    def confidence(self) -> float:
        """That of the least sure tag; 0 without tags, or where one has none."""
        return min((tag.confidence or 0.0 for tag in self.tags), default=0.0)

    @property
    def uncertainty(self) -> float:
        """The share of its tags that are wrong if confidences are right; 1 without tags."""
        return 1.0 - sum(tag.confidence or 0.0 for tag in self.tags) / len(self.tags) if self.tags else 1.0


def queue_files(folder: Path) -> list[Path]:
    """Return the files of a catalogue run's queue. Raises DataError: it has none."""
    queues = [folder / f"review.{form}" for form in ("csv", "jsonl") if (folder / f"review.{form}").is_file()]
    if not queues:
        raise DataError(
            f"{folder}: no review.csv and no review.jsonl; expected the output of serve.generate with --accept-at"
        )
    sample = folder / ACCEPTED_SAMPLE
    return [queues[0], *([sample] if sample.is_file() else [])]


def read_queue(folder: Path, vocabulary: TagVocabulary) -> Iterator[Entry]:
    """Yield the entries of a catalogue run: the queue, then the sample of what was accepted.

    Tags that the vocabulary no longer has are left out.

    Raises:
        DataError: there is no queue, or a row of it is damaged.
    """
    for path in queue_files(folder):
        for number, row in enumerate(_rows(path), 1):
            try:
                yield _entry(row, vocabulary, is_sample=path.name == ACCEPTED_SAMPLE)
            except (KeyError, TypeError, ValueError, ValidationError) as error:
                reason = str(error).splitlines()[0]
                raise DataError(f"{path}: row {number} is no row of a review queue ({reason:.100})") from None


def read_labels(folder: Path, vocabulary: TagVocabulary) -> Iterator[Entry]:
    """Yield a labelled dataset's training products, their labels as tags. Raises DataError: it is none."""
    for product in read_labelled(split_file(folder, "train")):
        tags = tuple(ScoredTag.of(vocabulary[name]) for name in product.tags or () if name in vocabulary)
        yield Entry(product.model_copy(update={"tags": None}), tags)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            if path.suffix == ".csv":
                for row in csv.DictReader(stream):
                    yield {name: json.loads(row[name]) if name in _LISTS else row[name] for name in row}
            else:
                yield from map(json.loads, stream)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a review queue") from None
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: no review queue ({error!s:.100})") from None


def _entry(row: dict[str, Any], vocabulary: TagVocabulary, *, is_sample: bool) -> Entry:
    fields = {name: row[name] for name in ("id", "title", "description", "attributes")}
    scored = zip(row["tags"], row["confidences"], strict=True)
    tags = tuple(ScoredTag.of(vocabulary[name], confidence) for name, confidence in scored if name in vocabulary)
    return Entry(Product.from_row(fields, default_id="?"), tags, row["status"], is_sample)
