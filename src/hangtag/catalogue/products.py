"""Catalogues: products in, taggings out, in JSON Lines, CSV and Parquet; streaming, in flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.rows import FIELDS, CatalogueRows, ColumnMap
from hangtag.errors import DataError
from hangtag.product import Product, row_id

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
