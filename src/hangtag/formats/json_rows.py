"""Rows of JSON Lines, and of a file that is one JSON array."""

from __future__ import annotations

import codecs
import json
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from hangtag.formats.rows import DAMAGE, Position, Row, Source, Unreadable

_BLOCK = 1 << 16


class JsonLines:
    """One object a line. Blank lines at the end are no rows, blank lines between rows are bad ones."""

    def __init__(self, source: Source, start: Position) -> None:
        self._stream = source.open()
        if start.offset:
            self._stream.seek(start.offset)
        self._line = start.row
        self.offset = start.offset
        # Lengths of lines that are blank so far: rows only if another row follows.
        self._blank: list[int] = []
        self._ready: deque[tuple[dict[str, Any] | str, int]] = deque()
        self._is_done = False

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        rows: list[Row] = []
        line, offset, stream, ready = self._line, self.offset, self._stream, self._ready
        while len(rows) < count:
            if ready:
                row, num_bytes = ready.popleft()
                line += 1
                offset += num_bytes
                rows.append((line, row))
                continue
            if self._is_done:
                break
            try:
                raw = stream.readline()
            except DAMAGE as error:
                ready.append((f"the compressed file is damaged from here on ({error})", 0))
                self._is_done = True
                continue
            if not raw:
                self._is_done = True
            elif not raw.strip():
                self._blank.append(len(raw))
            elif self._blank:
                ready.extend(("an empty line; expected a JSON object", length) for length in self._blank)
                ready.append((_json_row(raw), len(raw)))
                self._blank.clear()
            else:
                line += 1
                offset += len(raw)
                rows.append((line, _json_row(raw)))
        self._line, self.offset = line, offset
        return rows

    def close(self) -> None:
        """Close the file."""
        if self._stream is not sys.stdin.buffer:
            self._stream.close()


def _json_row(raw: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} of the line); expected a JSON object in UTF-8"
        cells = _json_row(raw.decode("utf-8-sig", "replace").encode())
        return reason if isinstance(cells, str) else Unreadable.of(reason, cells)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}); expected an object, got {raw[:60]!r}"
    if not isinstance(row, dict):
        return f"got a JSON {type(row).__name__}, expected an object: {raw[:60]!r}"
    return row


class JsonArray:
    """The objects of one JSON array, read a block at a time. What follows a syntax error cannot be read."""

    offset = 0

    def __init__(self, source: Source, start: Position) -> None:
        self._stream = source.open()
        self._rows = self._elements()
        for _ in islice(self._rows, start.row):
            pass

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        return list(islice(self._rows, count))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _elements(self) -> Iterator[Row]:
        decode = json.JSONDecoder().raw_decode
        text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        buffer, number, wanted, is_end = "", 0, _BLOCK, False
        while True:
            if not is_end and len(buffer) < wanted:
                try:
                    block = self._stream.read(_BLOCK)
                except DAMAGE as error:
                    yield number + 1, f"the compressed file is damaged from here on ({error})"
                    return
                is_end = not block
                buffer += text.decode(block, final=is_end)
                continue
            # One bracket or comma stands before each element.
            start = buffer.lstrip()
            if not start or (start[0] == "]" and not start[1:].strip()):
                return
            if start[0] != ("," if number else "["):
                yield number + 1, f"not JSON from here on; expected a comma or the array's end, got {start[:40]!r}"
                return
            body = start[1:].lstrip()
            if body == "]" or (body[:1] == "]" and not number):
                return
            try:
                element, end = decode(body)
            except (ValueError, RecursionError) as error:
                if is_end or isinstance(error, RecursionError):
                    yield number + 1, f"not JSON from here on ({error})"
                    return
                wanted = 2 * len(buffer) + _BLOCK
                continue
            if end == len(body) and not is_end:
                wanted = 2 * len(buffer) + _BLOCK
                continue
            buffer, wanted, number = body[end:], _BLOCK, number + 1
            is_object = isinstance(element, dict)
            yield number, element if is_object else f"got a JSON {type(element).__name__}, expected an object"
