"""Rows of delimited text: CSV and TSV of any delimiter and encoding.

A quote that is opened and not closed would swallow the rows after it. It is noticed where what follows a closing
quote is no delimiter: then the line with the quote is a bad row, and reading goes on with the next line.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from hangtag.errors import DataError
from hangtag.formats.dialect import Dialect
from hangtag.formats.rows import DAMAGE, Position, Row, Source, Unreadable

_MOST_BYTES = 1 << 24
_MOST_LINES = 50_000
"""Of one row; what is longer has a quote that is not closed."""
_SURROGATE = re.compile("[\udc80-\udcff]")


class DelimitedRows:
    """The rows of a delimited file. With `is_exact`, `raw` is the text of the last row read.

    Raises:
        DataError: a column stands twice in the header.
    """

    def __init__(self, source: Source, dialect: Dialect, start: Position, *, is_exact: bool = False) -> None:
        # A field of a catalogue may be longer than the module's default of 128 kB.
        csv.field_size_limit(1 << 30)
        self._dialect = dialect
        self._stream: Any = source.open()
        self.offset = 0
        if dialect.is_wrapped:
            self._stream = io.TextIOWrapper(self._stream, dialect.encoding, "surrogatepass", newline="")
        self._again: deque[Any] = deque()
        self._record: list[Any] = []
        self._before: list[Any] = []
        self._is_exact = is_exact
        self._row = 0
        self._is_done = False
        try:
            self.header = self._read_header(source.name)
        except DataError:
            self._stream.close()
            raise
        if start.offset:
            self._stream.seek(start.offset)
            self.offset = start.offset
            self._row = start.row
        self._reader = self._rows()
        if start.row and not start.offset:
            self._pass_over(start.row)

    def _pass_over(self, count: int) -> None:
        while count > 0 and (rows := self.read(min(count, 1000))):
            count -= len(rows)

    def _read_header(self, name: str) -> list[str]:
        try:
            if not self._dialect.is_wrapped and self._stream.peek(3)[:3] == b"\xef\xbb\xbf":
                self.offset = len(self._stream.read(3))
            passed = list(islice(iter(self._stream.readline, None), self._dialect.first_line))
            self.offset += sum(map(len, passed))
            header = next(csv.reader(self._lines(), **self._format()), [])
        except (csv.Error, *DAMAGE) as error:
            raise DataError(f"{name}: not CSV ({error})") from None
        self._count_bytes()
        self._before[:0] = passed
        header = [column.lstrip("\ufeff") or f"column {n}" for n, column in enumerate(header, start=1)]
        for column in header:
            if header.count(column) > 1:
                raise DataError(f"{name}: column {column!r} stands twice in the header; rename one")
        return header

    def _format(self) -> dict[str, Any]:
        quoting = csv.QUOTE_MINIMAL if self._dialect.is_quoted else csv.QUOTE_NONE
        return {"delimiter": self._dialect.delimiter, "quoting": quoting}

    def _rows(self) -> Iterator[list[str]]:
        return csv.reader(self._lines(), strict=True, **self._format())

    def _lines(self) -> Iterator[str]:
        # Line ends are kept and may stand inside quotes: csv puts the lines of a row together.
        record, readline, encoding = self._record, self._stream.readline, self._dialect.encoding
        is_wrapped, size = self._dialect.is_wrapped, 0
        while line := self._again.popleft() if self._again else readline():
            if record:
                size += len(line)
                if size > _MOST_BYTES or len(record) > _MOST_LINES:
                    self._again.appendleft(line)
                    raise csv.Error("a quote that is not closed")
            else:
                size = len(line)
            record.append(line)
            yield line if is_wrapped else line.decode(encoding, "surrogateescape")

    @property
    def raw(self) -> str:
        """The last row (at first: the header and what stands before it) as it is written, its line end too.

        Bytes that are no text of the encoding are lone surrogates (`surrogateescape`).
        """
        if self._dialect.is_wrapped:
            return "".join(self._before)
        return b"".join(self._before).decode(self._dialect.encoding, "surrogateescape")

    def _count_bytes(self) -> None:
        if self._is_exact:
            self._before[:] = self._record
        if not self._dialect.is_wrapped:
            self.offset += sum(map(len, self._record))
        self._record.clear()

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        rows: list[Row] = []
        header, width, number = self.header, len(self.header), self._row
        while len(rows) < count and not self._is_done:
            try:
                values = next(self._reader)
            except StopIteration:
                self._is_done = True
                break
            except csv.Error as error:
                number += 1
                rows.append((number, self._broken(error)))
                continue
            except DAMAGE as error:
                number += 1
                rows.append((number, f"the compressed file is damaged from here on ({error})"))
                self._is_done = True
                break
            number += 1
            rows.append(
                (number, dict(zip(header, values, strict=True)) if len(values) == width else self._row_of(values))
            )
            if not all(map(str.isascii, values)) and any(map(_SURROGATE.search, values)):
                rows[-1] = (number, self._not_text(values))
            self._count_bytes()
        self._row = number
        return rows

    def _row_of(self, values: list[str]) -> dict[str, Any] | str:
        width = len(self.header)
        if len(values) == width:
            return dict(zip(self.header, values, strict=True))
        cells = dict(zip(self.header, values, strict=False))
        return Unreadable.of(f"{len(values)} columns, expected {width} as in the header", cells)

    def _not_text(self, values: list[str]) -> Unreadable:
        encoding = self._dialect.encoding
        readable = [v.encode(encoding, "surrogateescape").decode(encoding, "replace") for v in values]
        name = encoding.upper()
        return Unreadable.of(
            f"not {name}; expected a row in {name}", dict(zip(self.header, readable, strict=False))
        )

    def _broken(self, error: csv.Error) -> dict[str, Any] | str:
        """Return the first line of what could not be read as one row; the lines after it are read again."""
        first, *rest = self._record
        self._again.extendleft(reversed(rest))
        self._record[:] = [first]
        self._count_bytes()
        line = first if self._dialect.is_wrapped else first.decode(self._dialect.encoding, "surrogateescape")
        try:
            values = next(csv.reader([line], **self._format()), [])
        except csv.Error:
            values = []
        self._reader = self._rows()
        if _SURROGATE.search(line):
            return self._not_text(values)
        row = self._row_of(values)
        if not rest:
            return row
        cells = dict(zip(self.header, values, strict=False))
        return Unreadable.of(f"not CSV ({error}): a quote is opened and not closed", cells)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
