"""Rows of catalogue files in JSON Lines, CSV and Parquet: in order, in flat memory, from any row on."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from hangtag.catalogue.files import CatalogueFile, open_remote
from hangtag.errors import DataError

FIELDS = ("id", "title", "description", "attributes", "tags")
_PARQUET_BATCH = 2048
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)

Row = tuple[int, dict[str, Any] | str]
"""The row's number in its file, from 1 (lines in JSON Lines; a CSV header is not counted), and the row, or why it
cannot be read."""


class Unreadable(str):
    """Why a row cannot be read. `cells` is what it holds all the same, U+FFFD for bytes that are no text."""

    __slots__ = ("cells",)
    cells: dict[str, Any]

    @classmethod
    def of(cls, reason: str, cells: dict[str, Any]) -> Unreadable:
        """Return the reason with what the row holds."""
        made = cls(reason)
        made.cells = cells
        return made


class Position(NamedTuple):
    """Where reading goes on: the file's number, how many of its rows were read, and the byte after them (text)."""

    file: int = 0
    row: int = 0
    offset: int = 0


class ColumnMap:
    """Which column each field of a product is read from (see `hangtag.catalogue.products.parse_columns`)."""

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self.columns = dict(columns or {})
        self._fields = {field: self.columns.get(field, field) for field in FIELDS}
        self._single = {
            field.removeprefix("attributes."): column
            for field, column in self.columns.items()
            if field.startswith("attributes.")
        }

    @property
    def names(self) -> set[str]:
        """Every column that a product may be read from."""
        return set(self._fields.values()) | set(self.columns.values())

    def check(self, row: Mapping[str, Any], source: str) -> None:
        """Raise DataError if the first row of a file lacks the columns that a product needs."""
        for field, column in self.columns.items():
            if column not in row:
                raise DataError(
                    f"{source}: no column {column!r} (wanted for `{field}`); the first row has: {', '.join(row)}"
                )
        if not self.columns and "title" not in row and "description" not in row:
            raise DataError(
                f"{source}: neither `title` nor `description` is a column; the first row has: {', '.join(row)}; "
                "name them with --map title=COLUMN"
            )

    def __call__(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the row under the names of a product's fields."""
        if not self.columns:
            return row
        mapped = {field: row.get(column) for field, column in self._fields.items()}
        if self._single:
            base = mapped["attributes"] if isinstance(mapped["attributes"], dict) else {}
            mapped["attributes"] = base | {name: row.get(column) for name, column in self._single.items()}
        return mapped


class CatalogueRows:
    """The rows of several files as one catalogue.

    `columns` limits what is read of a Parquet file (None: every column). `start` is a `position` of an earlier
    reader of the same files. Rows are never skipped: what cannot be read is a row with the reason in its place.
    Blank lines at the end of JSON Lines are no rows, blank lines between rows are bad ones.
    """

    def __init__(
        self,
        files: Sequence[CatalogueFile],
        columns: Iterable[str] | None = None,
        *,
        start: Position | None = None,
    ) -> None:
        self._files = files
        self._columns = None if columns is None else frozenset(columns)
        self._position = start or Position()
        self._reader: _Reader | None = None

    @property
    def position(self) -> Position:
        """Where the next `read` begins."""
        return self._position

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, all of the file `position.file` as it was before; empty at the end.

        Raises:
            DataError: a file is missing or is not what its name says.
        """
        while self._position.file < len(self._files):
            file = self._files[self._position.file]
            try:
                if self._reader is None:
                    self._reader = _READERS[file.kind](file, self._columns, self._position)
                rows = self._reader.read(count)
            except OSError as error:
                raise DataError(f"{file.name}: {error.strerror or error}; expected a readable file") from None
            if rows:
                self._position = Position(self._position.file, self._position.row + len(rows), self._reader.offset)
                return rows
            self.close()
            self._position = Position(self._position.file + 1)
        return []

    def close(self) -> None:
        """Close the file that is open, if one is."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Reader(Protocol):
    offset: int

    def __init__(self, file: CatalogueFile, columns: frozenset[str] | None, start: Position) -> None: ...

    def read(self, count: int) -> list[Row]: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, file: CatalogueFile, columns: frozenset[str] | None, start: Position) -> None:
        self._stream = file.open()
        if start.offset:
            self._stream.seek(start.offset)
        self._line = start.row
        self.offset = start.offset
        # Lengths of lines that are blank so far: rows only if another row follows.
        self._blank: list[int] = []
        self._ready: deque[tuple[dict[str, Any] | str, int]] = deque()
        self._is_done = False

    def read(self, count: int) -> list[Row]:
        rows: list[Row] = []
        line, offset, stream, ready = self._line, self.offset, self._stream, self._ready
        while len(rows) < count:
            if ready:
                row, num_bytes = ready.popleft()
                line += 1
                offset += num_bytes
                rows.append((line, row))
                continue
            if self._is_done:
                break
            try:
                raw = stream.readline()
            except _DAMAGE as error:
                ready.append((f"the compressed file is damaged from here on ({error})", 0))
                self._is_done = True
                continue
            if not raw:
                self._is_done = True
            elif not raw.strip():
                self._blank.append(len(raw))
            elif self._blank:
                ready.extend(("an empty line; expected a JSON object", length) for length in self._blank)
                ready.append((_json_row(raw), len(raw)))
                self._blank.clear()
            else:
                line += 1
                offset += len(raw)
                rows.append((line, _json_row(raw)))
        self._line, self.offset = line, offset
        return rows

    def close(self) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()


def _json_row(raw: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} of the line); expected a JSON object in UTF-8"
        cells = _json_row(raw.decode("utf-8-sig", "replace").encode())
        return reason if isinstance(cells, str) else Unreadable.of(reason, cells)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}); expected an object, got {raw[:60]!r}"
    if not isinstance(row, dict):
        return f"got a JSON {type(row).__name__}, expected an object: {raw[:60]!r}"
    return row


class _Csv:
    def __init__(self, file: CatalogueFile, columns: frozenset[str] | None, start: Position) -> None:
        # A field of a catalogue may be longer than the module's default of 128 kB.
        csv.field_size_limit(1 << 30)
        self._stream = file.open()
        self.offset = 0
        try:
            self._header = self._read_header(file.name)
        except DataError:
            self._stream.close()
            raise
        if start.offset:
            self._stream.seek(start.offset)
            self.offset = start.offset
        self._reader = csv.reader(self._lines())
        self._row = start.row
        self._is_done = False

    def _read_header(self, name: str) -> list[str]:
        try:
            if self._stream.peek(3)[:3] == b"\xef\xbb\xbf":  # type: ignore[attr-defined]
                self.offset = len(self._stream.read(3))
            header = next(csv.reader(self._lines()), [])
        except (csv.Error, *_DAMAGE) as error:
            raise DataError(f"{name}: not CSV ({error})") from None
        for column in header:
            if header.count(column) > 1:
                raise DataError(f"{name}: column {column!r} stands twice in the header; rename one")
        return header

    def _lines(self) -> Iterator[str]:
        # Line ends are kept and may stand inside quotes: csv puts the lines of a row together.
        for raw in iter(self._stream.readline, b""):
            self.offset += len(raw)
            yield raw.decode("utf-8", "surrogateescape")

    def read(self, count: int) -> list[Row]:
        rows: list[Row] = []
        width = len(self._header)
        while len(rows) < count and not self._is_done:
            self._row += 1
            try:
                values = next(self._reader)
            except StopIteration:
                self._is_done = True
            except csv.Error as error:
                rows.append((self._row, f"not CSV ({error})"))
            except _DAMAGE as error:
                rows.append((self._row, f"the compressed file is damaged from here on ({error})"))
                self._is_done = True
            else:
                if not all(map(str.isascii, values)) and any(
                    "\udc80" <= character <= "\udcff" for value in values for character in value
                ):
                    readable = [
                        value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for value in values
                    ]
                    cells = dict(zip(self._header, readable, strict=False))
                    rows.append((self._row, Unreadable.of("not UTF-8; expected a row in UTF-8", cells)))
                elif len(values) != width:
                    rows.append((self._row, f"{len(values)} columns, expected {width} as in the header"))
                else:
                    rows.append((self._row, dict(zip(self._header, values, strict=True))))
        return rows

    def close(self) -> None:
        self._stream.close()


class _Parquet:
    offset = 0

    def __init__(self, file: CatalogueFile, columns: frozenset[str] | None, start: Position) -> None:
        import pyarrow
        import pyarrow.parquet

        self._name = file.name
        self._error = pyarrow.ArrowException
        try:
            self._file = pyarrow.parquet.ParquetFile(
                open_remote(file.path) if "://" in file.path else file.path,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            schema = self._file.schema_arrow
            present = [name for name in schema.names if columns is None or name in columns]
            if not present:
                raise DataError(
                    f"{file.name}: none of the columns {', '.join(sorted(columns or ()))}; it has: "
                    f"{', '.join(schema.names)}; name them with --map title=COLUMN"
                )
            self._maps = frozenset(n for n in present if pyarrow.types.is_map(schema.field(n).type))
            self._texts = frozenset(n for n in present if pyarrow.types.is_string(schema.field(n).type))
            groups: list[int] = []
            skip = start.row
            for group in range(self._file.num_row_groups):
                size = self._file.metadata.row_group(group).num_rows
                if groups or skip < size:
                    groups.append(group)
                else:
                    skip -= size
            self._batches = self._file.iter_batches(
                batch_size=_PARQUET_BATCH, row_groups=groups, columns=present, use_threads=False
            )
            self._row = start.row - skip
            self._rows = self._decoded()
            for _ in islice(self._rows, skip):
                pass
        except pyarrow.ArrowException as error:
            raise self._failure(error) from None

    def _decoded(self) -> Iterator[Row]:
        for batch in self._batches:
            names = batch.schema.names
            values = [self._column(name, column) for name, column in zip(names, batch.columns, strict=True)]
            for row in zip(*values, strict=True):
                self._row += 1
                yield self._row, dict(zip(names, row, strict=True))

    def _column(self, name: str, column: Any) -> list[Any]:
        if name in self._texts:
            # Several times as fast as to_pylist, which makes a scalar of every value.
            texts: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
            return texts
        values: list[Any] = _in_own_digits(column).to_pylist()
        return [dict(value or ()) for value in values] if name in self._maps else values

    def read(self, count: int) -> list[Row]:
        try:
            return list(islice(self._rows, count))
        except (self._error, OSError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> DataError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return DataError(f"{self._name}: not readable as Parquet ({reason:.200})")

    def close(self) -> None:
        self._file.close()


def _in_own_digits(column: Any) -> Any:
    """Return float32 as the shortest decimals that name them: 0.3 is not 0.300000011920929."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        is_short = pa.types.is_float32(kind.value_type)
        text, number = pa.list_(pa.string()), pa.list_(pa.float64())
    else:
        is_short = pa.types.is_float32(kind)
        text, number = pa.string(), pa.float64()
    return column.cast(text).cast(number) if is_short else column


_READERS: dict[str, type[_Reader]] = {
    ".jsonl": _JsonLines, ".ndjson": _JsonLines, ".csv": _Csv, ".parquet": _Parquet
}  # fmt: skip


def count_rows(file: CatalogueFile) -> int | None:
    """Return the number of rows for a progress bar: exact for Parquet, lines for uncompressed text, else None."""
    if file.size is None or file.path.lower().endswith(".gz"):
        return None
    if file.kind == ".parquet":
        import pyarrow.parquet

        with contextlib.suppress(Exception):
            source = open_remote(file.path) if "://" in file.path else file.path
            return int(pyarrow.parquet.read_metadata(source).num_rows)
        return None
    with file.open() as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - 1 if file.kind == ".csv" else lines
