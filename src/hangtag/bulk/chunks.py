"""Rows of a catalogue with their keys, a few thousand at a time, read ahead in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hangtag.bulk.keys import NO_KEY, RowKeys
from hangtag.catalogue.files import CatalogueFile, changed_file
from hangtag.catalogue.rows import CatalogueRows, ToFields
from hangtag.errors import DataError
from hangtag.formats.rows import Position, Reading
from hangtag.product import ProductFields, row_id

CHUNK_ROWS = 2048
_CLOSE_S = 2.0
T = TypeVar("T")

Interpret = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a row of the file to a row under the names of a product's fields."""


@dataclass(slots=True)
class Chunk:
    """Rows that stand together in one file and in one part.

    `fields[i]` is None where row i is no product; `bad[i]` then says why. `keys` holds the keys one after another.
    `position` is where reading goes on after it.
    """

    part: int
    file: int
    first_row: int
    ids: list[str]
    fields: list[ProductFields | None]
    keys: bytes
    bad: dict[int, str]
    kept: list[tuple[Any, ...]]
    position: Position

    def __len__(self) -> int:
        return len(self.ids)


def read_chunks(
    files: Sequence[CatalogueFile],
    reading: Reading,
    keys: RowKeys,
    *,
    part_rows: int,
    first_part: int = 0,
    start: Position | None = None,
    keep: Sequence[str] = (),
    interpret: Interpret | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Generator[Chunk]:
    """Yield the rows of the files from `start`, which is the beginning of part `first_part`.

    Rows are counted into parts of `part_rows`. `keep` names columns to hand on as they are. `interpret` takes the
    place of `reading`. `say` hears what was recognised of each file.

    Raises:
        DataError: a file cannot be read, lacks a column, holds no rows at all, or changes while it is read.
    """
    wanted = None if interpret else reading.names | set(keep)
    rows = CatalogueRows(files, None if interpret else reading, columns=wanted, start=start, say=say)
    part, room = first_part, part_rows
    checked = -1
    try:
        while batch := rows.read(min(room, CHUNK_ROWS)):
            file = rows.position.file
            if checked != file and (row := next((row for _, row in batch if not isinstance(row, str)), None)):
                _check_kept(files[file], row, keep)
                checked = file
            chunk = _chunk(batch, interpret or rows.to_fields, keys, keep)
            chunk.part, chunk.file, chunk.first_row = part, file, rows.position.row - len(batch)
            chunk.position = rows.position
            room -= len(batch)
            if not room:
                part, room = part + 1, part_rows
                if change := changed_file([files[file]]):
                    raise DataError(
                        f"{change} while it was read; repeat the same command: rows that are the same are not "
                        "tagged again"
                    )
            yield chunk
    finally:
        rows.close()
    if start is None and part == first_part and room == part_rows:
        raise DataError(f"{', '.join(file.name for file in files[:3])}: no rows; expected at least one product")


def _check_kept(file: CatalogueFile, row: Mapping[str, Any], keep: Sequence[str]) -> None:
    for column in keep:
        if column not in row:
            raise DataError(f"{file.name}: no column {column!r} to keep; the first row has: {', '.join(row)}")


def _chunk(batch: list[tuple[int, Any]], to_row: ToFields, keys: RowKeys, keep: Sequence[str]) -> Chunk:
    ids: list[str] = []
    fields: list[ProductFields | None] = []
    digests: list[bytes] = []
    bad: dict[int, str] = {}
    kept: list[tuple[Any, ...]] = []
    read = ProductFields.from_row
    for line, row in batch:
        if keep:
            kept.append(() if isinstance(row, str) else tuple([row.get(column) for column in keep]))
        mapped: Mapping[str, Any] = {}
        try:
            if isinstance(row, str):
                raise ValueError(row)
            mapped = to_row(row)
            product = read(mapped, default_id=f"line-{line}")
            digest = keys(product)
        except ValueError as error:
            bad[len(ids)] = str(error)
            ids.append(row_id(mapped, default_id=f"line-{line}"))
            fields.append(None)
            digests.append(NO_KEY)
        else:
            ids.append(product.id)
            fields.append(product)
            digests.append(digest)
    return Chunk(0, 0, 0, ids, fields, b"".join(digests), bad, kept, Position())


class ReadAhead(Generic[T]):
    """Iterates `source` in a thread of its own, `depth` items ahead. Close it after use."""

    def __init__(self, source: Iterator[T], depth: int = 4) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="hangtag-read", daemon=True)
        self._thread.start()

    def _run(self, source: Iterator[T]) -> None:
        last: tuple[T | None, BaseException | None] = (None, None)
        try:
            for item in source:
                if not self._put((item, None)):
                    break
        except BaseException as error:
            last = (None, error)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        self._put(last)

    def _put(self, item: tuple[T | None, BaseException | None]) -> bool:
        while not self._is_closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        """End the thread. One that waits for standard input is left behind, for the program's end to take."""
        self._is_closed.set()
        self._thread.join(_CLOSE_S)
