"""Catalogues: products in, in files of any format; streaming, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hangtag.catalogue.files import list_files
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError
from hangtag.formats.rows import FIELDS, Reading
from hangtag.product import Product, row_id

_READ_ROWS = 512


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no product. `line` counts from 1 (in CSV and Parquet: the row, its header not counted)."""

    id: str
    line: int
    reason: str


def parse_columns(
    mappings: Iterable[str], fields: Sequence[str] = FIELDS, *, has_attributes: bool = True
) -> dict[str, str]:
    """Return {field: column} of `--map` options such as `title=name` or `attributes.colour=Farbe`.

    Raises:
        DataError: an option has another form or names none of `fields` (by default those of a product).
    """
    known = ", ".join(fields) + (" or attributes.NAME" if has_attributes else "")
    columns = {}
    for mapping in mappings:
        field, separator, column = mapping.partition("=")
        is_known = field in fields or (has_attributes and field.startswith("attributes."))
        if not separator or not column or not is_known:
            raise DataError(f"--map {mapping!r}: expected FIELD=COLUMN, FIELD one of {known}")
        columns[field] = column
    return columns


def read_catalogue(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    reading: Reading | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Product | BadRow]:
    """Yield a product or a `BadRow` for every row of a catalogue, in order; never skips a row.

    `path` is a file of any format of docs/files.md, a folder of such files, or "-" for JSON Lines on standard
    input. `columns` maps product fields to column names (see `parse_columns`); a field without an entry is read
    from the column of its own name, other columns are ignored. `reading` says more on how to read it and takes the
    place of `columns`; `say` hears what was recognised. A row without id is called `line-N`. Blank lines at the
    end of JSON Lines are no rows, blank lines between rows are bad ones.

    Raises:
        DataError: the file is missing or of another kind, is no Parquet, or a mapped column is not in it.
    """
    reading = reading or Reading(columns=dict(columns or {}))
    files = list_files([path])
    rows = CatalogueRows(files, reading, columns=reading.names, say=say)
    is_first = True
    try:
        while batch := rows.read(_READ_ROWS):
            is_first = False
            to_fields = rows.to_fields
            for line, row in batch:
                default_id = f"line-{line}"
                mapped: Mapping[str, Any] = {}
                try:
                    if isinstance(row, str):
                        raise ValueError(row)
                    mapped = to_fields(row)
                    yield Product.from_row(mapped, default_id=default_id)
                except ValueError as error:
                    yield BadRow(row_id(mapped, default_id=default_id), line, str(error))
    finally:
        rows.close()
    if is_first:
        raise DataError(f"{files[0].name}: no rows; expected at least one product")
