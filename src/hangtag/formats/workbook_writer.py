"""An Excel workbook written back with other tags: cells, formulas and styles stay. It is held in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any

from hangtag.errors import MissingExtra
from hangtag.formats.rows import Source
from hangtag.formats.workbook import column_names


def write_workbook(source: Source, column: str, cells: Iterator[tuple[int, str]], stream: IO[bytes]) -> None:
    """Write the workbook with new cells in a column of its first sheet, a new one where there is none.

    Raises:
        MissingExtra: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("openpyxl", "files") from None
    bytes_in = source.open()
    try:
        with warnings.catch_warnings():
            # On parts of a workbook that openpyxl does not keep.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(bytes_in)
    finally:
        bytes_in.close()
    sheet = book.worksheets[0]
    new = dict(cells)
    place: int | None = None
    number = 0
    for line, row in enumerate(sheet.iter_rows(), start=1):
        values = tuple(cell.value for cell in row)
        if all(value is None or value == "" for value in values):
            continue
        if place is None:
            names = column_names(values)
            place = names.index(column) + 1 if column in names else len(names) + 1
            sheet.cell(line, place).value = column
            continue
        number += 1
        if number in new:
            sheet.cell(line, place).value = new[number] or None
    book.save(stream)


def write_new_workbook(header: Iterable[str], rows: Iterable[Iterable[Any]], stream: IO[bytes]) -> None:
    """Write a workbook of one sheet, a row at a time. Raises MissingExtra: openpyxl is not installed."""
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("openpyxl", "files") from None
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(list(header))
    for row in rows:
        sheet.append(list(row))
    book.save(stream)
