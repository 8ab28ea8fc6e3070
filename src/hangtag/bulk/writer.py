"""Puts parts together and makes them durable, in a thread of its own and in order."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hangtag.bulk.keys import keys_column
from hangtag.bulk.ledger import Ledger, PartRecord
from hangtag.bulk.parts import PartFolder
from hangtag.catalogue.tagging_columns import answers_table
from hangtag.durable import Step, no_step
from hangtag.errors import DataError, HangtagError
from hangtag.formats.rows import Position
from hangtag.tagging import Tagging

_WAITING_PARTS = 2


class Place(NamedTuple):
    """Where a tagging stands."""

    edition: int
    part: int
    row: int


@dataclass(slots=True)
class OpenPart:
    """A part that is being filled: `missing` of its rows still wait for a tagging."""

    number: int
    ids: list[str] = field(default_factory=list)
    keys: bytearray = field(default_factory=bytearray)
    kept: list[tuple[Any, ...]] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    taggings: dict[int, Tagging] = field(default_factory=dict)
    copies: list[tuple[int, Place]] = field(default_factory=list)
    new_keys: list[bytes] = field(default_factory=list)
    journaled: list[bytes] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    position: Position = field(default_factory=Position)
    missing: int = 0
    is_whole: bool = False


class PartWriter:
    """Takes whole parts; `done` returns those that the ledger holds. Close it after use."""

    def __init__(
        self,
        ledger: Ledger,
        folders: Mapping[int, PartFolder],
        records: Mapping[int, dict[int, PartRecord]],
        edition: int,
        *,
        keep: Sequence[tuple[str, Any]] = (),
        step: Step = no_step,
    ) -> None:
        """Write into `folders[edition]`. `records` holds the parts of every edition by number; those written join.

        `keep` lists name and Arrow type of columns to hand on.
        """
        self._ledger = ledger
        self._folders = folders
        self._records = records
        self._edition = edition
        self._keep = keep
        self._step = step
        self._queue: queue.Queue[OpenPart | dict[bytes, str] | None] = queue.Queue(_WAITING_PARTS)
        self._done: queue.SimpleQueue[OpenPart] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hangtag-write", daemon=True)
        self._thread.start()

    def submit(self, work: OpenPart | dict[bytes, str]) -> None:
        """Hand over a whole part, or taggings for the journal; waits while too much lies before it.

        Raises:
            HangtagError: an earlier part could not be written.
        """
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(work, timeout=0.2)
            except queue.Full:
                continue
            return

    def done(self) -> list[OpenPart]:
        """Return the parts that were finished since the last call, in order."""
        finished = []
        while not self._done.empty():
            finished.append(self._done.get())
        return finished

    def close(self) -> None:
        """Wait for what was handed over. Raises HangtagError: it could not be written."""
        self._queue_end()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _queue_end(self) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.2)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            while (work := self._queue.get()) is not None:
                if isinstance(work, dict):
                    self._ledger.add_to_journal(work)
                else:
                    self._write(work)
                    self._done.put(work)
        except BaseException as error:
            self._error = error

    def _write(self, part: OpenPart) -> None:
        table = self._assemble(part)
        statuses = table.column("status").value_counts().to_pylist()
        counts = dict(part.counts) | {item["values"]: item["counts"] for item in statuses}
        record = PartRecord(
            number=part.number,
            num_rows=len(part.ids),
            position=part.position,
            segments=tuple(part.segments),
            num_bytes=0,
            sha256="",
            index_bytes=0,
            counts=counts,
        )
        folder = self._folders[self._edition]
        try:
            record = folder.write(table, record, step=self._step)
        except OSError as error:
            raise write_failure(folder.part_path(part.number), error) from None
        now = time.monotonic()
        self._ledger.add_part(self._edition, record, seconds=now - self._last, journaled=part.journaled)
        self._last = now
        self._records[self._edition][part.number] = record

    def _assemble(self, part: OpenPart) -> Any:
        import pyarrow as pa

        own = sorted(part.taggings)
        tables = [answers_table([part.taggings[row] for row in own])]
        rows = [np.array(own, np.int64)]
        sources: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for row, place in part.copies:
            sources[place.edition, place.part].append((row, place.row))
        for (edition, number), pairs in sorted(sources.items()):
            targets, origins = np.array(pairs, np.int64).T
            if (edition, number) == (self._edition, part.number):
                tables.append(tables[0].take(pa.array(np.searchsorted(rows[0], origins))))
            else:
                tables.append(self._folders[edition].answers(self._records[edition][number], origins))
            rows.append(targets)
        table = pa.concat_tables(tables).combine_chunks()
        order = np.argsort(np.concatenate(rows), kind="stable")
        if len(tables) > 1:
            table = table.take(pa.array(order))
        table = table.add_column(0, "id", pa.array(part.ids, pa.string()))
        table = table.append_column("key", keys_column(bytes(part.keys)))
        for position, (name, kind) in enumerate(self._keep):
            values = [row[position] if row else None for row in part.kept]
            table = table.append_column(name, _kept_column(values, kind))
        return table


def _kept_column(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    if kind is not None:
        return pa.array(values, kind)
    texts = [value if value is None or isinstance(value, str) else _as_json(value) for value in values]
    return pa.array(texts, pa.string())


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_failure(path: Any, error: OSError) -> HangtagError:
    """Return the error for a file of an output folder that could not be written."""
    return DataError(
        f"{path}: cannot be written ({error.strerror or error}); what is entered is safe: free space or give "
        "write access, then repeat the same command"
    )
