"""A Parquet file written back with other tags: columns, their types and the order of rows stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import IO

from hangtag.formats.columnar import class_labels, named
from hangtag.formats.rows import Source


def write_parquet(
    source: Source,
    column: str,
    tags: Iterator[tuple[int, Sequence[str]]],
    to_cell: Callable[[Sequence[str]], str],
    stream: IO[bytes],
) -> None:
    """Write the file with new tags in `column`: as `to_cell` writes them where it holds text, else as lists."""
    import pyarrow as pa
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(source.random_access()) as file:
        schema = file.schema_arrow
        place = schema.get_field_index(column)
        is_text = place >= 0 and pa.types.is_string(schema.field(place).type)
        field = pa.field(column, pa.string() if is_text else pa.list_(pa.string()))
        made = schema.append(field) if place < 0 else schema.set(place, field)
        metadata = dict(schema.metadata or {})
        labels = class_labels(metadata).get(column)
        # The note of `datasets` would call the column what it was.
        metadata.pop(b"huggingface", None)
        made = made.with_metadata(metadata or None)
        number, new = next(tags, (None, ()))
        row = 0
        with pyarrow.parquet.ParquetWriter(stream, made, compression="zstd") as writer:
            for batch in file.iter_batches():
                values = batch.column(place).to_pylist() if place >= 0 else [None] * batch.num_rows
                if labels:
                    values = [None if value is None else named(value, labels) for value in values]
                for position in range(batch.num_rows):
                    row += 1
                    if row == number:
                        values[position] = to_cell(new) if is_text else list(new)
                        number, new = next(tags, (None, ()))
                arrays = list(batch.columns)
                arrays[place if place >= 0 else len(arrays) :] = [
                    pa.array(values, field.type),
                    *(arrays[place + 1 :] if place >= 0 else ()),
                ]
                writer.write_table(pa.table(arrays, schema=made))
