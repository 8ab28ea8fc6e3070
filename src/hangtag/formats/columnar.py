"""Rows of Parquet files and of the Arrow files in a folder that Hugging Face `datasets` saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from hangtag.errors import DataError
from hangtag.formats.rows import Position, Row, Source, canonical

_BATCH = 2048


class ParquetRows:
    """The rows of a Parquet file, of all columns or of those with the given names."""

    offset = 0

    def __init__(self, source: Source, columns: frozenset[str] | None, start: Position) -> None:
        import pyarrow
        import pyarrow.parquet

        self._name = source.name
        self._error = pyarrow.ArrowException
        try:
            self._file = pyarrow.parquet.ParquetFile(
                source.random_access(), pre_buffer=False, page_checksum_verification=True
            )
            schema = self._file.schema_arrow
            present = _present(schema.names, columns, source.name)
            self._values = _Values(schema, present)
            groups: list[int] = []
            skip = start.row
            for group in range(self._file.num_row_groups):
                size = self._file.metadata.row_group(group).num_rows
                if groups or skip < size:
                    groups.append(group)
                else:
                    skip -= size
            self._batches = self._file.iter_batches(
                batch_size=_BATCH, row_groups=groups, columns=present, use_threads=False
            )
            self._row = start.row - skip
            self._rows = self._decoded()
            for _ in islice(self._rows, skip):
                pass
        except pyarrow.ArrowException as error:
            raise self._failure(error) from None

    def _decoded(self) -> Iterator[Row]:
        for batch in self._batches:
            for row in self._values.rows(batch):
                self._row += 1
                yield self._row, row

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        try:
            return list(islice(self._rows, count))
        except (self._error, OSError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> DataError:
        return _failure(self._name, "Parquet", error)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def parquet_header(source: Source) -> tuple[str, ...]:
    """Return the names of a Parquet file's columns. Raises DataError: it cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        return tuple(pyarrow.parquet.read_schema(source.random_access()).names)
    except pyarrow.ArrowException as error:
        raise _failure(source.name, "Parquet", error) from None


class ArrowRows:
    """The rows of one Arrow file (a stream, as `datasets` writes it, or a file with a footer)."""

    offset = 0

    def __init__(self, source: Source, columns: frozenset[str] | None, start: Position) -> None:
        import pyarrow

        self._name = source.name
        self._error = pyarrow.ArrowException
        self._stream = source.open()
        try:
            self._reader = pyarrow.ipc.open_stream(self._stream)
        except pyarrow.ArrowException as error:
            self._stream.close()
            raise _failure(self._name, "an Arrow stream", error) from None
        self._present = _present(self._reader.schema.names, columns, source.name)
        self._values = _Values(self._reader.schema, self._present)
        self._rows = self._decoded(start.row)

    def _decoded(self, skip: int) -> Iterator[Row]:
        number = 0
        for batch in self._reader:
            if number + batch.num_rows <= skip:
                number += batch.num_rows
                continue
            for first in range(0, batch.num_rows, _BATCH):
                for row in self._values.rows(batch.select(self._present).slice(first, _BATCH)):
                    number += 1
                    if number > skip:
                        yield number, row

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        try:
            return list(islice(self._rows, count))
        except (self._error, OSError) as error:
            raise _failure(self._name, "an Arrow stream", error) from None

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _Values:
    """Columns of batches as Python values: maps as dicts, numbers of a ClassLabel as the names they stand for."""

    def __init__(self, schema: Any, present: list[str]) -> None:
        import pyarrow as pa

        self._maps = frozenset(n for n in present if pa.types.is_map(schema.field(n).type))
        self._texts = frozenset(n for n in present if pa.types.is_string(schema.field(n).type))
        self._labels = {name: names for name, names in class_labels(schema.metadata).items() if name in present}

    def rows(self, batch: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a batch."""
        names = batch.schema.names
        values = [self._column(name, column) for name, column in zip(names, batch.columns, strict=True)]
        for row in zip(*values, strict=True):
            yield dict(zip(names, row, strict=True))

    def _column(self, name: str, column: Any) -> list[Any]:
        if name in self._texts:
            # Several times as fast as to_pylist, which makes a scalar of every value.
            texts: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
            return texts
        values: list[Any] = _in_own_digits(column).to_pylist()
        if name in self._labels:
            return [named(value, self._labels[name]) for value in values]
        return [dict(value or ()) for value in values] if name in self._maps else values


def _present(names: list[str], columns: frozenset[str] | None, source: str) -> list[str]:
    wanted = None if columns is None else {canonical(name) for name in columns}
    present = [name for name in names if wanted is None or canonical(name) in wanted]
    if not present:
        raise DataError(
            f"{source}: none of the columns {', '.join(sorted(columns or ()))}; it has: {', '.join(names)}; "
            "name them with --map title=COLUMN"
        )
    return present


def class_labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of each column of labels, as `datasets` notes them in a file's schema."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {}
        for name, feature in features.items():
            inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
                found[name] = list(map(str, inner["names"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    return found


def named(value: Any, names: list[str]) -> Any:
    """Return the name that a label's number stands for, or the names of a list of numbers."""
    if isinstance(value, list):
        return [named(item, names) for item in value]
    # -1 is how `datasets` writes a missing label.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


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


def _failure(name: str, what: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{name}: not readable as {what} ({reason:.200})")
