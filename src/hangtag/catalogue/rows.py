"""Rows of catalogue files of any format: in order, in flat memory, from any row on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from hangtag.catalogue.files import CatalogueFile
from hangtag.errors import DataError
from hangtag.formats.recognise import Recognised, check_first_row, open_reader, recognise
from hangtag.formats.rows import Position, Reader, Reading, Row

ToFields = Callable[[dict[str, Any]], Mapping[str, Any]]


class CatalogueRows:
    """The rows of several files as one catalogue.

    `reading` says how the files are read; None: as rows that stand for themselves, whatever format they are of.
    `columns` limits what is read of a Parquet file (None: every column). `start` is a `position` of an earlier
    reader of the same files. `say` hears what was recognised, a line a file. Rows are never skipped: what cannot
    be read is a row with the reason in its place. Blank lines at the end of JSON Lines are no rows, blank lines
    between rows are bad ones.
    """

    def __init__(
        self,
        files: Sequence[CatalogueFile],
        reading: Reading | None = None,
        *,
        columns: Iterable[str] | None = None,
        start: Position | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._files = files
        self._reading = reading
        self._columns = None if columns is None else frozenset(columns)
        self._position = start or Position()
        self._reader: Reader | None = None
        self._found: Recognised | None = None
        self._is_checked = reading is None
        self._say = say

    @property
    def position(self) -> Position:
        """Where the next `read` begins."""
        return self._position

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, all of the file `position.file` as it was before; empty at the end.

        Raises:
            DataError: a file is missing, is not what its name says, or lacks a column that a product needs.
        """
        while self._position.file < len(self._files):
            file = self._files[self._position.file]
            try:
                if self._reader is None:
                    self._reader = self._open(file)
                rows = self._reader.read(count)
            except OSError as error:
                raise DataError(f"{file.name}: {error.strerror or error}; expected a readable file") from None
            if rows:
                self._check(file, rows)
                self._position = Position(self._position.file, self._position.row + len(rows), self._reader.offset)
                return rows
            self.close()
            self._position = Position(self._position.file + 1)
        return []

    def _open(self, file: CatalogueFile) -> Reader:
        reading = self._reading or Reading()
        found = recognise(file, reading, is_raw=self._reading is None)
        if found.notes:
            self._say(f"{file.name}: {found.notes}")
        self._found = found
        return open_reader(file, found, reading, self._columns, self._position)

    def _check(self, file: CatalogueFile, rows: list[Row]) -> None:
        if self._is_checked or self._reading is None or self._found is None:
            return
        for _, row in rows:
            if not isinstance(row, str):
                check_first_row(file.name, self._found, self._reading, row)
                self._is_checked = True
                return

    @property
    def to_fields(self) -> ToFields:
        """What turns a row of the last `read` into one under the names of a product's fields.

        It raises ValueError where a row's tags are neither a list nor text.
        """
        assert self._found is not None
        assert self._reading is not None
        return partial(self._found.product_fields, self._reading)

    def close(self) -> None:
        """Close the file that is open, if one is."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._is_checked = self._reading is None


def count_rows(file: CatalogueFile) -> int | None:
    """Return the number of rows for a progress bar: exact for Parquet, lines for uncompressed text, else None."""
    if file.size is None or file.path.lower().endswith(".gz"):
        return None
    if file.kind == ".parquet":
        import pyarrow.parquet

        with contextlib.suppress(Exception):
            return int(pyarrow.parquet.read_metadata(file.random_access()).num_rows)
        return None
    if file.kind not in (".jsonl", ".ndjson", ".csv", ".tsv"):
        return None
    with file.open() as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return lines - 1 if file.kind in (".csv", ".tsv") else lines
