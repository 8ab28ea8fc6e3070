"""Which format a file is of, by its content and its header, and the reader for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hangtag.errors import DataError
from hangtag.formats.columnar import ArrowRows, ParquetRows, parquet_header
from hangtag.formats.delimited import DelimitedRows
from hangtag.formats.dialect import Dialect, read_head, recognise_dialect
from hangtag.formats.feed_xml import feed_items
from hangtag.formats.fields import Cells, Format, canonical_names
from hangtag.formats.google import Google
from hangtag.formats.html_text import is_available, looks_like_html
from hangtag.formats.json_rows import JsonArray, JsonLines
from hangtag.formats.label_studio import LabelStudio
from hangtag.formats.magento import Magento
from hangtag.formats.openfoodfacts import OpenFoodFacts
from hangtag.formats.plain import Plain
from hangtag.formats.rows import (
    Position,
    Reader,
    Reading,
    Row,
    Source,
    canonical,
    check_columns,
    column_of,
    with_columns,
)
from hangtag.formats.shopify import Shopify
from hangtag.formats.tag_cells import SEPARATORS, choose_separator, separator_of, split_tags
from hangtag.formats.variants import IteratedRows, adjacent, by_parent, every_row
from hangtag.formats.woocommerce import WooCommerce
from hangtag.formats.workbook import sheet_names, workbook_rows

PLAIN = Plain()
FORMATS: tuple[Format, ...] = (
    Shopify(),
    WooCommerce(),
    Magento(),
    Google(),
    OpenFoodFacts(),
    LabelStudio(),
    PLAIN,
)
FORMAT_NAMES = tuple(form.name for form in FORMATS)
_SAMPLE_ROWS = 200
_CONTAINERS = {
    "jsonl": "JSON Lines", "json": "JSON array", "delimited": "delimited text", "parquet": "Parquet",
    "arrow": "Arrow", "xlsx": "Excel workbook", "xml": "XML feed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a file is: its container, how text in it is written, the format of its rows, what separates tags.

    `header` is what the columns are called, empty where no row was looked at. `separator` None: tags are lists.
    `notes` is what was recognised or guessed, "" where nothing was.
    """

    container: str
    dialect: Dialect
    form: Format
    header: tuple[str, ...]
    separator: str | None
    notes: str

    def tag_column(self, reading: Reading) -> str:
        """Return the column that tags are written to; a new one where the header has none."""
        named = reading.label_column or reading.columns.get("tags")
        wanted = (named,) if named else self.form.tag_columns
        there = (column_of(self.header, name) for name in wanted)
        return next((column for column in there if column is not None), wanted[-1])

    def product_fields(self, reading: Reading, row: dict[str, Any]) -> Mapping[str, Any]:
        """Return the fields of the product that a row describes.

        Raises:
            ValueError: its tags are no list and no text.
        """
        label = reading.label_column
        fields = self.form.fields(row, None if label is None else canonical(label))
        if label is not None:
            fields = dict(fields) | {"tags": row.get(column_of(tuple(row), label) or label)}
        fields = with_columns(reading, row, fields)
        tags = fields.get("tags")
        if isinstance(tags, str):
            fields = dict(fields) | {"tags": split_tags(tags, self.separator) if tags.strip() else None}
        return fields


def recognise(source: Source, reading: Reading, *, is_raw: bool = False) -> Recognised:
    """Return what a file is, from its first bytes and rows. `is_raw`: rows of no shop's format are wanted.

    Raises:
        DataError: the file cannot be read, or lacks what the user named.
    """
    if reading.format is not None and reading.format not in FORMAT_NAMES:
        near = get_close_matches(reading.format, FORMAT_NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"--from {reading.format!r}: expected one of {', '.join(FORMAT_NAMES)}{hint}")
    container = "jsonl" if source.path == "-" else _container(source)
    is_text = container == "delimited"
    dialect = recognise_dialect(source, reading) if is_text else Dialect(delimiter="", encoding="")
    header: tuple[str, ...] = ()
    wanted: frozenset[str] | None = None
    if container == "parquet":
        # Other columns may be large, such as images.
        header = parquet_header(source)
        wanted = frozenset(name for name in header if canonical(name) in {*map(canonical, reading.names)})
    is_sampled = source.path != "-" and not is_raw and wanted != frozenset()
    sample = list(_sample(source, container, dialect, wanted)) if is_sampled else []
    header = header or tuple(dict.fromkeys(name for row in sample for name in row))
    names = canonical_names(header)
    form = next(
        form for form in FORMATS
        if (form.name == reading.format if reading.format else form.matches(names))
    )  # fmt: skip
    notes = [] if form is PLAIN and container in ("jsonl", "parquet", "delimited") else [form.shown]
    if notes or container not in ("jsonl", "parquet", "delimited"):
        notes.append(_CONTAINERS[container])
    if container == "xlsx" and len(sheets := sheet_names(source)) > 1:
        notes.append(f"sheet {sheets[0]!r}, the first of {len(sheets)}")
    notes += dialect.guesses
    separator, note = _separator(form, reading, sample)
    notes += note
    notes += _html_note(form, sample)
    return Recognised(container, dialect, form, header, separator, "; ".join(notes))


def _container(source: Source) -> str:
    """Return what a file's bytes are; its name decides where they do not."""
    head = read_head(source, 512)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1") or source.kind == ".parquet":
        return "parquet"
    if source.kind == ".arrow":
        return "arrow"
    if head.startswith(b"PK\x03\x04") or source.kind == ".xlsx":
        return "xlsx"
    if start.startswith(b"<") or source.kind in (".xml", ".rss", ".atom"):
        return "xml"
    if source.kind in (".jsonl", ".ndjson", ".json"):
        return "json" if start.startswith(b"[") else "jsonl"
    return "delimited"


def _sample(
    source: Source, container: str, dialect: Dialect, columns: frozenset[str] | None
) -> Iterator[dict[str, Any]]:
    reader = _open_container(source, container, dialect, columns, Position())
    try:
        for _, row in reader.read(_SAMPLE_ROWS):
            if isinstance(row, dict):
                yield row
    finally:
        reader.close()


def _open_container(
    source: Source, container: str, dialect: Dialect, columns: frozenset[str] | None, start: Position
) -> Reader:
    if container == "parquet":
        return ParquetRows(source, columns, start)
    if container == "arrow":
        return ArrowRows(source, columns, start)
    if container == "delimited":
        return DelimitedRows(source, dialect, start)
    if container == "jsonl":
        return JsonLines(source, start)
    if container == "json":
        return JsonArray(source, start)
    rows = workbook_rows(source) if container == "xlsx" else feed_items(source)
    return IteratedRows(rows, start)


def open_reader(
    source: Source, found: Recognised, reading: Reading, columns: frozenset[str] | None, start: Position
) -> Reader:
    """Return the reader of a recognised file from a position on; `columns` limits what is read of Parquet."""
    form, is_separate = found.form, reading.variants == "separate"
    only = columns if form is PLAIN else None

    def rows() -> Iterator[Row]:
        return every_row(_open_container(source, found.container, found.dialect, None, Position()))

    if form.grouping == "adjacent":
        return IteratedRows(adjacent(rows(), form, is_separate=is_separate), start)
    if form.grouping == "parent":
        return IteratedRows(by_parent(rows, form, is_separate=is_separate), start)
    return _open_container(source, found.container, found.dialect, only, start)


def check_first_row(name: str, found: Recognised, reading: Reading, row: dict[str, Any]) -> None:
    """Refuse a file whose first rows lack the columns that a product needs. Raises DataError."""
    row = dict.fromkeys(found.header) | row
    check_columns(reading, row, name)
    if found.form is PLAIN and not reading.columns and not canonical_names(row) & {"title", "description"}:
        raise DataError(
            f"{name}: neither `title` nor `description` is a column; the first row has: {', '.join(row)}; "
            "name them with --map title=COLUMN"
        )


def _separator(form: Format, reading: Reading, sample: list[dict[str, Any]]) -> tuple[str | None, list[str]]:
    if reading.tag_separator is not None:
        return separator_of(reading.tag_separator), []
    wanted = reading.label_column or reading.columns.get("tags")
    if wanted is None and form.separator is not None:
        return form.separator, []
    cells = []
    for row in sample:
        column = column_of(tuple(row), wanted or form.tag_columns[0])
        if column is not None and isinstance(row[column], str):
            cells.append(row[column])
    chosen = choose_separator(cells, reading.known_tags)
    if chosen is None:
        return None, []
    said = f"separated by {SEPARATORS[chosen]!r}" if chosen else "one in each cell"
    return chosen, [f"tags {said} (a guess; --tag-separator overrides it)"]


def _html_note(form: Format, sample: list[dict[str, Any]]) -> list[str]:
    if form is not PLAIN or is_available():
        return []
    is_html = any(looks_like_html(Cells(row)("description")) for row in sample)
    return ["descriptions stay HTML; pip install 'hangtag[files]' makes them text"] if is_html else []
