"""JSON Lines written back with other tags: every other byte of a line stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from hangtag.formats.rows import Source


def write_json_lines(source: Source, column: str, cells: Iterator[tuple[int, str]], stream: IO[bytes]) -> None:
    """Write the file with new values (JSON texts) of the key `column`, at a line's end where a line has it not."""
    lines = source.open()
    try:
        number, cell = next(cells, (None, ""))
        for row_number, raw in enumerate(iter(lines.readline, b""), start=1):
            if row_number != number:
                stream.write(raw)
                continue
            stream.write(with_value(raw.decode("utf-8"), column, cell).encode())
            number, cell = next(cells, (None, ""))
    finally:
        lines.close()


def with_value(line: str, key: str, value: str) -> str:
    """Return the line of a JSON object with another value of one key.

    >>> with_value('{"a": 1.50, "tags": ["x"] }\\n', "tags", '["red"]')
    '{"a": 1.50, "tags": ["red"] }\\n'
    >>> with_value('{"a": 1}', "tags", "[]")
    '{"a": 1, "tags": []}'
    """
    decode = json.JSONDecoder().raw_decode
    position = line.index("{") + 1
    last = position
    while True:
        position = _after_space(line, position)
        if line[position] == "}":
            separator = ", " if json.loads(line.lstrip("\ufeff")) else ""
            return f"{line[:last]}{separator}{json.dumps(key, ensure_ascii=False)}: {value}{line[last:]}"
        if line[position] == ",":
            position = _after_space(line, position + 1)
        name, position = decode(line, position)
        position = _after_space(line, position) + 1
        start = _after_space(line, position)
        _, last = decode(line, start)
        if name == key:
            return line[:start] + value + line[last:]
        position = last


def _after_space(line: str, position: int) -> int:
    while line[position] in " \t\r\n":
        position += 1
    return position
