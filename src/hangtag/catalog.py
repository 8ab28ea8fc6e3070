"""Catalogues: products in, taggings out, in JSON Lines, CSV and Parquet; streaming, in flat memory."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from hangtag.errors import DataError
from hangtag.manifest import file_sha256
from hangtag.product import Product
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

FIELDS = ("id", "title", "description", "attributes", "tags")
SPLITS = ("train", "validation", "test")
_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
_PARQUET_BATCH = 2048


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
    columns = dict(columns or {})
    where = str(path)
    if where == "-":
        rows: Iterator[tuple[int, dict[str, Any] | str]] = _json_rows(sys.stdin.buffer)
        yield from _products(rows, columns, "standard input")
        return
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    if kind not in _SUFFIXES:
        raise DataError(
            f"{path}: got {''.join(suffixes) or 'no suffix'}, expected .jsonl, .csv (also .gz) or .parquet"
        )
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; expected a catalogue file")
    if kind == ".parquet":
        yield from _products(_parquet_rows(path, columns), columns, where)
        return
    try:
        with gzip.open(path) if suffixes[-1] == ".gz" else path.open("rb") as stream:
            rows = _csv_rows(stream, path) if kind == ".csv" else _json_rows(stream)  # type: ignore[arg-type]
            yield from _products(rows, columns, where)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a readable file") from None


def count_rows(path: str | Path) -> int | None:
    """Return the number of rows for a progress bar: exact for Parquet, lines for uncompressed text, else None."""
    path = Path(path)
    if not path.is_file() or path.suffix == ".gz":
        return None
    if path.suffix == ".parquet":
        import pyarrow.parquet

        with contextlib.suppress(Exception):
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        return None
    with path.open("rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - 1 if path.suffix == ".csv" else lines


def _products(
    rows: Iterator[tuple[int, dict[str, Any] | str]], columns: dict[str, str], source: str
) -> Iterator[Product | BadRow]:
    num_rows = 0
    for line, row in rows:
        num_rows += 1
        if isinstance(row, str):
            yield BadRow(f"line-{line}", line, row)
            continue
        if num_rows == 1:
            _check_columns(row, columns, source)
        mapped = _map_columns(row, columns) if columns else row
        try:
            yield Product.from_row(mapped, default_id=f"line-{line}")
        except ValueError as error:
            row_id = mapped.get("id")
            name = str(row_id) if isinstance(row_id, str | int) and row_id != "" else f"line-{line}"
            yield BadRow(name, line, str(error))
    if not num_rows:
        raise DataError(f"{source}: no rows; expected at least one product")


def _check_columns(row: Mapping[str, Any], columns: Mapping[str, str], source: str) -> None:
    for field, column in columns.items():
        if column not in row:
            raise DataError(
                f"{source}: no column {column!r} (wanted for `{field}`); the first row has: {', '.join(row)}"
            )
    if not columns and not any(field in row for field in ("title", "description")):
        raise DataError(
            f"{source}: neither `title` nor `description` is a column; the first row has: {', '.join(row)}; "
            "name them with --map title=COLUMN"
        )


def _map_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    mapped = {field: row.get(columns.get(field, field)) for field in FIELDS}
    single = {
        field.removeprefix("attributes."): row.get(column)
        for field, column in columns.items()
        if field.startswith("attributes.")
    }
    if single:
        base = mapped["attributes"] if isinstance(mapped["attributes"], dict) else {}
        mapped["attributes"] = base | single
    return mapped


def _json_rows(stream: IO[bytes]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    blank: list[int] = []
    line = 0
    lines = iter(stream)
    while True:
        line += 1
        try:
            raw = next(lines)
        except StopIteration:
            return
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield line, f"the compressed file is damaged from here on ({error})"
            return
        if not raw.strip():
            blank.append(line)
            continue
        for empty in blank:
            yield empty, "an empty line; expected a JSON object"
        blank.clear()
        yield line, _json_row(raw)


def _json_row(raw: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start} of the line); expected a JSON object in UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}); expected an object, got {raw[:60]!r}"
    if not isinstance(row, dict):
        return f"got a JSON {type(row).__name__}, expected an object: {raw[:60]!r}"
    return row


def _csv_rows(stream: IO[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    # A field of a catalogue may be longer than the module's default of 128 kB.
    csv.field_size_limit(1 << 30)
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text)
        try:
            header = next(reader, [])
        except (csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: not CSV ({error})") from None
        for name in header:
            if header.count(name) > 1:
                raise DataError(f"{path}: column {name!r} stands twice in the header; rename one")
        row_number = 0
        while True:
            row_number += 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield row_number, f"not CSV ({error})"
                continue
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield row_number, f"the compressed file is damaged from here on ({error})"
                return
            if any("\udc80" <= character <= "\udcff" for value in values for character in value):
                yield row_number, "not UTF-8; expected a row in UTF-8"
            elif len(values) != len(header):
                yield row_number, f"{len(values)} columns, expected {len(header)} as in the header"
            else:
                yield row_number, dict(zip(header, values, strict=True))


def _parquet_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
        wanted = {columns.get(field, field) for field in FIELDS} | set(columns.values())
        present = [name for name in schema.names if name in wanted]
        if not present:
            raise DataError(
                f"{path}: none of the columns {', '.join(sorted(wanted))}; it has: {', '.join(schema.names)}; "
                "name them with --map title=COLUMN"
            )
        maps = [name for name in present if pyarrow.types.is_map(schema.field(name).type)]
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=present):
            for row in batch.to_pylist():
                number += 1
                for name in maps:
                    row[name] = dict(row[name] or ())
                yield number, row
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]:.200})") from None


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
    stream: Callable[[Iterable[Product]], Iterator[Tagging]],
    rows: Iterable[Product | BadRow],
    *,
    model: str,
    vocabulary: TagVocabulary,
) -> Iterator[Tagging]:
    """Yield one tagging a row, in order: products through `stream`, bad rows as taggings of status "error".

    `stream` yields taggings in the order of its products and may read ahead; `model` and `vocabulary` go into
    the taggings of bad rows.
    """
    order: deque[BadRow | None] = deque()

    def products() -> Iterator[Product]:
        for row in rows:
            if isinstance(row, BadRow):
                order.append(row)
            else:
                order.append(None)
                yield row

    def leading_bad_rows() -> Iterator[Tagging]:
        while order and (row := order[0]) is not None:
            order.popleft()
            yield Tagging(
                id=row.id, status="error", reason=row.reason, model=model, vocabulary=vocabulary.fingerprint
            )

    for tagging in stream(products()):
        yield from leading_bad_rows()
        order.popleft()
        yield tagging
    yield from leading_bad_rows()


class TaggingWriter:
    """Writes taggings in the order they come, as .jsonl, .jsonl.gz, .csv or .parquet by the file's name.

    A context manager. The file appears under its name on a clean exit; until then, and after a failure, it is
    `.NAME.partial` in the same folder. CSV puts tags and confidences as JSON lists into one column each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        kinds = [suffix.lower() for suffix in self.path.suffixes]
        self._kind = next((suffix for suffix in reversed(kinds) if suffix != ".gz"), "")
        if self._kind not in _SUFFIXES or (kinds[-1] == ".gz" and self._kind == ".parquet"):
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

    tag = pa.struct([("tag", pa.string()), ("facet", pa.string()), ("confidence", pa.float64())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("tags", pa.list_(tag)),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("violations", pa.map_(pa.string(), pa.int64())),
            ("model", pa.string()),
            ("vocabulary", pa.string()),
        ]
    )
