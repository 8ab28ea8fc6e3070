"""A delimited file written back with other tags: every other cell stays byte for byte as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from hangtag.errors import DataError
from hangtag.formats.delimited import DelimitedRows
from hangtag.formats.dialect import Dialect, read_head
from hangtag.formats.rows import Position, Source

Cells = Iterator[tuple[int, str]]
"""The numbers of rows, ascending, with the new cell of each."""


def write_delimited(source: Source, dialect: Dialect, column: str, cells: Cells, stream: IO[bytes]) -> None:
    """Write the file with new cells in `column`, which is added at the end where the file has none of this name.

    Rows that cannot be read stay as they are.

    Raises:
        DataError: a cell cannot be written in the file's encoding.
    """
    reader = DelimitedRows(source, dialect, Position(), is_exact=True)

    def write(text: str) -> None:
        try:
            stream.write(
                text.encode(dialect.encoding, "surrogatepass" if dialect.is_wrapped else "surrogateescape")
            )
        except UnicodeEncodeError as error:
            character = text[error.start : error.end]
            raise DataError(
                f"{source.name}: {character!r} of a tag cannot be written in {dialect.encoding}; save the file as "
                "UTF-8 first"
            ) from None

    try:
        if not dialect.is_wrapped and (mark := read_head(source, 3)) == b"\xef\xbb\xbf":
            stream.write(mark)
        place = reader.header.index(column) if column in reader.header else None
        width = len(reader.header)
        write(reader.raw if place is not None else _with_cell(reader.raw, dialect, None, width, column))
        number, cell = next(cells, (None, ""))
        while rows := reader.read(1):
            row_number, row = rows[0]
            if isinstance(row, str):
                write(reader.raw)
                continue
            if row_number == number:
                write(_with_cell(reader.raw, dialect, place, width, cell))
                number, cell = next(cells, (None, ""))
            else:
                write(reader.raw if place is not None else _with_cell(reader.raw, dialect, None, width, ""))
    finally:
        reader.close()


def _with_cell(raw: str, dialect: Dialect, place: int | None, width: int, cell: str) -> str:
    """Return a row as it is written, one cell replaced; `place` None: a cell more at its end.

    >>> _with_cell('1,"a, b",x\\n', Dialect(), 2, 3, "red, blue")
    '1,"a, b","red, blue"\\n'
    """
    spans = _spans(raw, dialect)
    text = _quoted(cell, dialect)
    if place is None:
        end = spans[-1][1]
        return raw[:end] + dialect.delimiter + text + raw[end:]
    start, end = spans[place - width]
    if raw[start:end] == cell:
        return raw
    if dialect.is_quoted and raw[start:end].startswith('"') and not text.startswith('"'):
        text = f'"{text}"'
    return raw[:start] + text + raw[end:]


def _quoted(cell: str, dialect: Dialect) -> str:
    if not dialect.is_quoted:
        return cell.replace("\t", " ").replace("\n", " ")
    if any(mark in cell for mark in ('"', "\n", "\r", dialect.delimiter)):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _spans(raw: str, dialect: Dialect) -> list[tuple[int, int]]:
    """Return where the cells of a row begin and end, the quotes around them included."""
    spans = []
    start, end = 0, len(raw.rstrip("\r\n"))
    while True:
        position = start
        if dialect.is_quoted and raw[start : start + 1] == '"':
            position = start + 1
            while (position := raw.find('"', position)) >= 0 and raw[position + 1 : position + 2] == '"':
                position += 2
            position = end if position < 0 else position + 1
        stop = raw.find(dialect.delimiter, position, end)
        if stop < 0:
            spans.append((start, end))
            return spans
        spans.append((start, stop))
        start = stop + 1
