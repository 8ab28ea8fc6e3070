"""A table with one column a level, as a spreadsheet (`.xlsx`, `.xls`, `.ods`) or as CSV.

The first row names the columns: `Level 1`, `Level 2` …, `Category`, `Subcategory` and the like are levels, `id`,
`code`, `gid` or `uri` the id, `description` or `definition` the description. A row without such names, whose first
cell is a number, is data: the number is the id and the others are levels, as in Google's workbook with ids.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hangtag.errors import MissingExtra, VocabularyError
from hangtag.recognition import header_cells, is_level
from hangtag.taxonomies.concepts import Taxonomy
from hangtag.taxonomies.paths import PathTree

Row = tuple[int, list[str]]
_IDS = ("id", "code", "gid", "uri")
_DESCRIPTIONS = ("description", "definition")


@dataclass(frozen=True, slots=True)
class _Columns:
    levels: list[int]
    id: int | None
    description: int | None
    note: str
    has_header: bool = True


def read_levels(data: bytes, text: str | None, source: str) -> Taxonomy:
    """Return the tree of a table; `text` is None for a workbook, whose first sheet is read.

    Cells left empty before a row's first name repeat the row above.

    Raises:
        VocabularyError: no column is a level, or it is no workbook.
        MissingExtra: python-calamine is not installed.
    """
    rows = _workbook_rows(data, source) if text is None else table_rows(text, _delimiter(text), source)
    if not rows:
        raise VocabularyError(f"{source}: no rows; expected a table with one column a level")
    columns = _columns(rows[0][1], source)
    taxonomy = Taxonomy(notes=[columns.note])
    tree = PathTree(taxonomy)
    above: list[str] = []
    for number, cells in rows[columns.has_header :]:
        path = [cells[column].strip() if column < len(cells) else "" for column in columns.levels]
        if not any(path):
            taxonomy.pass_over("rows without a name", f"row {number}")
            continue
        first = next(depth for depth, name in enumerate(path) if name)
        if first > len(above):
            taxonomy.pass_over("rows below a level that no row names", f"row {number}")
            continue
        path = [*above[:first], *path[first:]]
        while not path[-1]:
            path.pop()
        above = path
        tree.add(
            path,
            f"row {number}",
            id=_cell(cells, columns.id) or None,
            description=_cell(cells, columns.description),
        )
    return tree.finish()


def _cell(cells: Sequence[str], column: int | None) -> str:
    return cells[column].strip() if column is not None and column < len(cells) else ""


def _columns(header: Sequence[str], source: str) -> _Columns:
    names = [name.strip().lower() for name in header]
    if names[0].isdecimal():
        return _Columns(list(range(1, len(names))), 0, None, "no header: the first column is the id", False)
    id_column = next((names.index(name) for name in _IDS if name in names), None)
    description = next((names.index(name) for name in _DESCRIPTIONS if name in names), None)
    others = [number for number, name in enumerate(names) if name and number not in (id_column, description)]
    levels = [number for number in others if is_level(names[number])] or others
    if not levels:
        raise VocabularyError(f"{source}:1: columns {', '.join(names)}; expected one column a level")
    unused = [header[number].strip() for number in others if number not in levels]
    note = f"levels are the columns {', '.join(header[number].strip() for number in levels)}"
    if unused:
        note += f"; not used: {', '.join(unused)}"
    return _Columns(levels, id_column, description, note)


def _delimiter(text: str) -> str:
    return header_cells(text.split("\n", 1)[0])[1]


def table_rows(text: str, delimiter: str, source: str) -> list[Row]:
    """Return the rows of a table with their lines, the first one too. Raises VocabularyError: it is no CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise VocabularyError(f"{source}:{reader.line_num}: not CSV ({error})") from None


def _workbook_rows(data: bytes, source: str) -> list[Row]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise MissingExtra("python-calamine", "files") from None
    try:
        sheet = CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0)
        return [(number, [_text(cell) for cell in row]) for number, row in enumerate(sheet.to_python(), start=1)]
    except (CalamineError, OSError, IndexError) as error:
        raise VocabularyError(f"{source}: not a workbook ({error})") from None


def _text(cell: Any) -> str:
    """Return a cell as it is shown: calamine reads the whole number 12 as 12.0."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
