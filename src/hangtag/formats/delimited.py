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
from typing import Any, NamedTuple

from hangtag.errors import DataError
from hangtag.formats.rows import DAMAGE, Position, Reading, Row, Source, Unreadable, canonical

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 50
_MOST_BYTES = 1 << 24
_MOST_LINES = 50_000
"""Of one row; what is longer has a quote that is not closed."""
_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)
_ASCII = frozenset(map(chr, range(128)))
_WESTERN = frozenset(
    "äöüÄÖÜßàâæçéèêëïîôœùûÿÀÂÆÇÉÈÊËÏÎÔŒÙÛŸáíóúñÁÍÓÚÑåøÅØìòÌÒãõÃÕšžŠŽýÝ€£©®™°–—‘’“”„…•·½¼¾×±«»\xa0´¡§"
)
# Three accents in a row, a capital after a small letter, a pound sign before a letter.
_ODD = re.compile(r"[À-ÿ]{3}|[a-zß-ÿ][À-ÖØ-ÞŸŒŠŽ]|£[^\W\d]")
_SURROGATE = re.compile("[\udc80-\udcff]")


class Dialect(NamedTuple):
    """How a delimited file is written; `first_line` is that of the header, from 0.

    `is_wrapped` says that lines cannot be told in its bytes: UTF-16, or lines that end in a lone CR.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    is_quoted: bool = True
    first_line: int = 0
    is_wrapped: bool = False
    guesses: tuple[str, ...] = ()


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


def recognise_dialect(source: Source, reading: Reading) -> Dialect:
    """Return how a delimited file is written, from its first mebibyte and what the user says.

    Raises:
        DataError: the encoding or delimiter that the user names does not exist.
    """
    head = read_head(source, _HEAD_BYTES)
    encoding, guesses = _encoding(head, reading.encoding, source.name)
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    is_wide = encoding.replace("-", "").replace("_", "").startswith(("utf16", "utf32"))
    lines = text.splitlines()[: _SAMPLE_LINES + 1]
    first_line = 0
    stated = _SEPARATOR_LINE.match(lines[0]) if lines else None
    if stated is not None:
        first_line, lines = 1, lines[1:]
    delimiter = reading.delimiter and {"tab": "\t", "\\t": "\t"}.get(reading.delimiter, reading.delimiter)
    if delimiter is None:
        delimiter = stated.group(1) if stated else _delimiter(lines, source.kind)
    elif len(delimiter) != 1:
        raise DataError(f"--delimiter {reading.delimiter!r}: expected one character, or tab")
    if delimiter != ("\t" if source.kind == ".tsv" else ","):
        guesses.append(f"delimiter {DELIMITERS.get(delimiter, repr(delimiter))}")
    names = {canonical(name) for name in lines[0].split("\t")} if lines else set()
    is_quoted = not (delimiter == "\t" and {"code", "product name", "creator"} <= names)
    is_wrapped = is_wide or ("\r" in text and "\n" not in text)
    return Dialect(delimiter, encoding, is_quoted, first_line, is_wrapped, tuple(guesses))


def read_head(source: Source, size: int) -> bytes:
    """Return the first bytes of a file, what can be read of them where it is damaged."""
    stream = source.open()
    try:
        head = b""
        while len(head) < size and (block := stream.read(min(size, 1 << 16))):
            head += block
    except DAMAGE:
        pass
    finally:
        stream.close()
    return head


def _encoding(head: bytes, given: str | None, name: str) -> tuple[str, list[str]]:
    if given is not None:
        try:
            "".encode(given)
        except LookupError:
            raise DataError(
                f"--encoding {given!r}: no such encoding; expected for example utf-8 or cp1252"
            ) from None
        # The mark of byte order then stays a part of the text, and is written back as it was.
        return (_wide(head) if "".encode(given) == "".encode("utf-16") else given.lower()), []
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _wide(head), ["encoding UTF-16"]
    lines = [line for line in head[: head.rfind(b"\n") + 1 or len(head)].split(b"\n") if not line.isascii()]
    num_other = sum(not _is_utf8(line) for line in lines)
    if num_other <= len(lines) - num_other:
        # Where most lines are UTF-8, one that is not is a bad row and no reason to read all others wrongly.
        return "utf-8", []
    guess = "cp1252" if _is_western(b"\n".join(lines)) else None
    if guess is None:
        try:
            from charset_normalizer import from_bytes
        except ImportError:
            return "utf-8", ["not UTF-8; give --encoding, or pip install 'hangtag[files]' for a guess"]
        best = from_bytes(head).best()
        guess = "cp1252" if best is None else best.encoding
    return guess, [f"encoding {guess} (a guess; --encoding overrides it)"]


def _wide(head: bytes) -> str:
    return "utf-16-be" if head.startswith(b"\xfe\xff") else "utf-16-le"


def _is_western(text: bytes) -> bool:
    """Return whether text reads well as Windows-1252: accents stand as they do in words.

    charset-normalizer 3.5 takes a few lines of it for cp1250, cp1006 or Big5.
    """
    decoded = text.decode("cp1252", "replace")
    return set(decoded) - _ASCII <= _WESTERN and not _ODD.search(decoded)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(lines: list[str], kind: str) -> str:
    """Return the delimiter under which most lines are as wide as the header, of equals that of the widest."""
    best, chosen = (0, 0), "\t" if kind == ".tsv" else ","
    for delimiter in DELIMITERS:
        try:
            rows = list(csv.reader([f"{line}\n" for line in lines], delimiter=delimiter))
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > 1:
            score = (sum(len(row) == width for row in rows) * 4 // len(rows), width)
            if score > best:
                best, chosen = score, delimiter
    return chosen
