"""Catalogues: products in, taggings out, in JSON Lines, CSV and Parquet; streaming, in flat memory."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hangtag.bulk.answers import answer_schema
from hangtag.bulk.files import SUFFIXES, catalogue_file
from hangtag.bulk.rows import FIELDS, CatalogueRows, ColumnMap
from hangtag.errors import DataError
from hangtag.manifest import file_sha256
from hangtag.product import Product, row_id
from hangtag.tagging import Stream, Tagging, check_pair
from hangtag.vocabulary import TagVocabulary

SPLITS = ("train", "validation", "test")
_READ_ROWS = 512


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no product. `line` counts from 1 (in CSV and Parquet: the row, its header not counted)."""

    id: str
    line: int
    reason: str


def parse_columns(mappings: Iterable[str]) -> dict[str, str]:
    """Return {product field: column} of `--map` options such as `title=name` or `attributes.colour=Farbe`.

    Raises:
        DataError: an option has another form or names no field of a product.
    """
    columns = {}
    for mapping in mappings:
        field, separator, column = mapping.partition("=")
        if not separator or not column or (field not in FIELDS and not field.startswith("attributes.")):
            raise DataError(
                f"--map {mapping!r}: expected FIELD=COLUMN, FIELD one of {', '.join(FIELDS)} or attributes.NAME"
            )
        columns[field] = column
    return columns


def read_catalogue(path: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Product | BadRow]:
    """Yield a product or a `BadRow` for every row of a catalogue, in order; never skips a row.

    `path` ends in .jsonl, .csv or .parquet, the first two also with .gz, or is "-" for JSON Lines on standard
    input. `columns` maps product fields to column names (see `parse_columns`); a field without an entry is
    read from the column of its own name, other columns are ignored. A row without id is called `line-N`.
    Blank lines at the end of JSON Lines are no rows, blank lines between rows are bad ones.

    Raises:
        DataError: the file is missing or of another kind, is no Parquet, or a mapped column is not in it.
    """
    to_fields = ColumnMap(columns)
    file = catalogue_file(path)
    rows = CatalogueRows([file], to_fields.names)
    is_first, is_checked = True, False
    try:
        while batch := rows.read(_READ_ROWS):
            is_first = False
            for line, row in batch:
                if isinstance(row, str):
                    yield BadRow(f"line-{line}", line, row)
                    continue
                if not is_checked:
                    to_fields.check(row, file.name)
                    is_checked = True
                mapped = to_fields(row)
                try:
                    yield Product.from_row(mapped, default_id=f"line-{line}")
                except ValueError as error:
                    yield BadRow(row_id(mapped, default_id=f"line-{line}"), line, str(error))
    finally:
        rows.close()
    if is_first:
        raise DataError(f"{file.name}: no rows; expected at least one product")


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


def tag_rows(
    stream: Stream,
    rows: Iterable[Product | BadRow],
    *,
    model: str,
    vocabulary: TagVocabulary,
) -> Iterator[Tagging]:
    """Yield one tagging a row, in order: products through `stream`, bad rows as taggings of status "error".

    `stream` yields taggings in the order of its products and may read ahead; `model` and `vocabulary` go into
    the taggings of bad rows.

    Raises:
        EngineError: `stream` yields the tagging of another product, one too many or too few.
    """
    order: deque[BadRow | Product] = deque()

    def products() -> Iterator[Product]:
        for row in rows:
            order.append(row)
            if isinstance(row, Product):
                yield row

    def leading_bad_rows() -> Iterator[Tagging]:
        while order and isinstance(row := order[0], BadRow):
            order.popleft()
            yield Tagging(
                id=row.id, status="error", reason=row.reason, model=model, vocabulary=vocabulary.fingerprint
            )

    for tagging in stream(products()):
        yield from leading_bad_rows()
        check_pair(order.popleft().id if order else None, tagging)
        yield tagging
    yield from leading_bad_rows()
    check_pair(order[0].id if order else None, None)


class TaggingWriter:
    """Writes taggings in the order they come, as .jsonl, .jsonl.gz, .csv or .parquet by the file's name.

    A context manager. The file appears under its name on a clean exit; until then, and after a failure, it is
    `.NAME.partial` in the same folder. CSV puts tags and confidences as JSON lists into one column each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        kinds = [suffix.lower() for suffix in self.path.suffixes]
        self._kind = next((suffix for suffix in reversed(kinds) if suffix != ".gz"), "")
        if self._kind not in SUFFIXES or (kinds[-1] == ".gz" and self._kind == ".parquet"):
            raise DataError(f"{path}: expected a name that ends in .jsonl, .csv (also .gz) or .parquet")
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self.num_written = 0
        self._parquet: Any = None

    def __enter__(self) -> TaggingWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._kind == ".parquet":
                import pyarrow.parquet

                self._parquet = pyarrow.parquet.ParquetWriter(self._partial, _tagging_schema())
                return self
            raw = gzip.open(self._partial, "wb") if self.path.suffix == ".gz" else self._partial.open("wb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror or error})") from None
        self._stream = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        if self._kind == ".csv":
            self._csv = csv.writer(self._stream)
            self._csv.writerow(["id", "tags", "confidences", "status", "reason", "model", "vocabulary"])
        return self

    def write(self, taggings: Sequence[Tagging]) -> None:
        """Append taggings. Raises DataError when the disk is full or the file cannot be written."""
        try:
            if self._kind == ".parquet":
                import pyarrow

                rows = [_tagging_row(tagging) for tagging in taggings]
                self._parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_tagging_schema()))
            elif self._kind == ".csv":
                self._csv.writerows(_csv_tagging(tagging) for tagging in taggings)
            else:
                self._stream.writelines(tagging.to_json() + "\n" for tagging in taggings)
            self.num_written += len(taggings)
        except OSError as error:
            raise self._failure(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            (self._parquet if self._kind == ".parquet" else self._stream).close()
            if kind is None:
                os.replace(self._partial, self.path)
        except OSError as failure:
            if kind is None:
                raise self._failure(failure) from None

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path}: writing failed after {self.num_written} taggings ({error.strerror or error}); "
            f"what was written is in {self._partial}"
        )


def _tagging_row(tagging: Tagging) -> dict[str, Any]:
    return tagging.model_dump() | {"violations": list(tagging.violations.items())}


def _csv_tagging(tagging: Tagging) -> list[str]:
    confidences = [tag.confidence for tag in tagging.tags]
    return [
        tagging.id,
        json.dumps(tagging.names, ensure_ascii=False),
        json.dumps(confidences),
        tagging.status,
        tagging.reason or "",
        tagging.model,
        tagging.vocabulary,
    ]


def _tagging_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("id", pa.string()), *answer_schema()])
