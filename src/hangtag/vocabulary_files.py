"""A vocabulary's own files, read as entries: a list of tags, a table, JSON or JSON Lines, also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hangtag.errors import VocabularyError
from hangtag.recognition import CSV_COLUMNS, DESCRIPTIONS, Format, decode, header_cells, recognise

OWN_FORMATS: tuple[Format, ...] = ("list", "csv", "json", "jsonl", "paths")
"""What is read as it is; paths are tags of their own here, and a tree after an import."""

Row = tuple[int, dict[str, Any]]


def read_bytes(path: str | Path) -> bytes:
    """Return a file's bytes, decompressed where they are gzipped. Raises VocabularyError: it cannot be read."""
    try:
        data = Path(path).read_bytes()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VocabularyError(f"{path}: gzip that cannot be read ({error}); write the file anew") from None
    except OSError as error:
        raise VocabularyError(f"{path}: {error.strerror or error}; expected a vocabulary file") from None


def read_text(path: str | Path) -> tuple[str, Format]:
    """Return the text of a vocabulary's own file and its format.

    Raises:
        VocabularyError: it is missing, not UTF-8, or of a format that has to be imported.
    """
    data = read_bytes(path)
    form = recognise(data, str(path))
    if form == "xml":
        raise VocabularyError(f"{path}: {DESCRIPTIONS[form]}; expected tags as a list, CSV or JSON")
    if form not in OWN_FORMATS:
        raise VocabularyError(
            f"{path}: {DESCRIPTIONS[form]}, which is no vocabulary yet; make it one: "
            f"hangtag vocabulary import {shlex.quote(str(path))} --out tags.json"
        )
    try:
        return decode(data), form
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None


def read_rows(text: str, form: Format, source: str) -> Iterator[Row]:
    """Yield line and entry of each tag of a list, a table or JSON Lines.

    Raises:
        VocabularyError: the table has other columns, or a line is no JSON.
    """
    readers = {"csv": _csv_rows, "jsonl": _json_rows}
    return readers.get(form, _plain_rows)(text, source)


def _plain_rows(text: str, source: str) -> Iterator[Row]:
    for line, tag in enumerate(text.rstrip("\n").split("\n"), start=1):
        yield line, {"tag": tag.rstrip("\r")}


def _json_rows(text: str, source: str) -> Iterator[Row]:
    for line, entry in enumerate(text.split("\n"), start=1):
        if not entry.strip():
            continue
        try:
            yield line, json.loads(entry)
        except (json.JSONDecodeError, RecursionError) as error:
            raise VocabularyError(f"{source}:{line}: not JSON ({getattr(error, 'msg', error)})") from None


def _csv_rows(text: str, source: str) -> Iterator[Row]:
    header, delimiter = header_cells(text.split("\n", 1)[0])
    if "tag" not in header:
        raise VocabularyError(
            f"{source}:1: columns {', '.join(header) or 'none'}; expected a column `tag`, or one column a level: "
            f"hangtag vocabulary import {shlex.quote(source)} --format levels --out tags.json"
        )
    unknown = [name for name in header if name not in CSV_COLUMNS and not name.startswith("label_")]
    if unknown:
        raise VocabularyError(
            f"{source}:1: unknown column {unknown[0]!r}; expected some of {', '.join(CSV_COLUMNS)}, label_LANGUAGE"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    next(reader)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, _csv_entry(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise VocabularyError(f"{source}:{reader.line_num}: not CSV ({error})") from None


def _csv_entry(row: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {name: row[name] for name in CSV_COLUMNS if row.get(name) and name != "path"}
    entry.setdefault("tag", "")
    if "aliases" in entry:
        # A bar that belongs to an alias is written \|.
        parts = re.split(r"(?<!\\)\|", entry["aliases"])
        entry["aliases"] = [part.strip().replace(r"\|", "|") for part in parts]
    labels = {
        name.removeprefix("label_"): cell for name, cell in row.items() if name.startswith("label_") and cell
    }
    return entry | {"labels": labels} if labels else entry


def entry_lines(text: str, num_entries: int) -> dict[int, int]:
    """Return the line on which each element of a JSON vocabulary's list begins, by the element's position."""
    decoder = json.JSONDecoder()
    start = 0
    if text.lstrip().startswith("{"):
        start = text.find('"tags"')
    position = text.find("[", start) + 1
    lines: dict[int, int] = {}
    line, counted = 1, 0
    for number in range(num_entries):
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", counted, position)
        counted = position
        lines[number] = line
        _, position = decoder.raw_decode(text, position)
    return lines
