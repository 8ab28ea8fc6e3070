"""One pass over a catalogue: every row gets its tagging, from the engine only where no equal one is known.

    reading thread   files -> rows -> fields and keys
    this thread      keys -> known tagging, or a place in the queue of the engine -> tagging
    writing thread   whole parts -> files -> ledger

The engine is fed from a window of some thousand products, sorted by length; parts are put together and entered
strictly in the order of the catalogue. A tagging that the engine gave is in a durable part, or within seconds in
the ledger's journal, so an end at any moment costs seconds of the engine's work.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.bulk.chunks import Chunk, Interpret, ReadAhead, read_chunks
from hangtag.bulk.key_index import KeyIndex, split_keys
from hangtag.bulk.keys import KEY_BYTES, RowKeys
from hangtag.bulk.ledger import EditionRecord
from hangtag.bulk.output import Output
from hangtag.bulk.writer import OpenPart, PartWriter, Place
from hangtag.catalogue.files import CatalogueFile
from hangtag.errors import HangtagError
from hangtag.formats.rows import Reading
from hangtag.product import Product, ProductFields
from hangtag.tagging import Stream, Tagging, check_pair

WINDOW = 4096
_JOURNAL_S = 5.0
_TELL_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be tagged, and how.

    `context` is the digest that keys hold; `model` and `vocabulary` (a fingerprint) stand in the taggings of bad
    rows. `carry` names an earlier context and the tags whose taggings do not outlive it: other taggings of that
    context are taken over. With `retry_errors` earlier taggings that are not "ok" are made again. `keep` lists
    name and Arrow type of columns to hand on. `window` is in products. `say` hears what was recognised of
    files.
    """

    files: tuple[CatalogueFile, ...]
    reading: Reading
    context: str
    model: str
    vocabulary: str
    part_rows: int
    keep: tuple[tuple[str, Any], ...] = ()
    interpret: Interpret | None = None
    retry_errors: bool = False
    carry: tuple[str, frozenset[str]] | None = None
    window: int = WINDOW
    accept_at: float | None = None
    say: Callable[[str], None] = lambda _: None


@dataclass(slots=True)
class Totals:
    """Rows so far, by what became of them; `rows` counts those whose tagging is known."""

    rows: int = 0
    tagged: int = 0
    duplicates: int = 0
    reused: int = 0
    carried: int = 0
    malformed: int = 0
    failed: int = 0
    for_review: int = 0


@dataclass(slots=True)
class _Waiting:
    part: OpenPart
    row: int
    key: bytes
    fields: ProductFields
    length: int = field(default=0)
    asked: str = ""
    """The id under which the engine knows it."""


class Lookup:
    """Finds the taggings that earlier editions hold for keys, newest edition first."""

    def __init__(self, output: Output, job: Job, current: int | None) -> None:
        self._output = output
        self._job = job
        self._current = current
        editions = sorted(output.records, reverse=True)
        contexts = {edition.number: edition.context for edition in output.ledger.editions()}
        self._same = [number for number in editions if contexts[number] == job.context]
        self._older: list[int] = []
        self._older_keys: RowKeys | None = None
        if job.carry is not None:
            self._older = [number for number in editions if contexts[number] == job.carry[0]]
            self._older_keys = RowKeys(job.carry[0])

    def __call__(self, chunk: Chunk) -> tuple[dict[int, Place], frozenset[int]]:
        """Return where the taggings of rows stand, and which of them are carried over from another context."""
        places: dict[int, Place] = {}
        words = split_keys(chunk.keys)
        open_rows = np.flatnonzero(words.any(axis=1))
        for edition in self._same:
            open_rows = self._find(edition, words, open_rows, places)
        carried: dict[int, Place] = {}
        if self._older_keys is not None and len(open_rows):
            digests = [self._older_keys(fields) for row in open_rows if (fields := chunk.fields[row]) is not None]
            old_words = np.zeros_like(words)
            old_words[open_rows] = split_keys(b"".join(digests))
            for edition in self._older:
                open_rows = self._find(edition, old_words, open_rows, carried)
        return places | carried, frozenset(carried)

    def _find(self, edition: int, words: Any, rows: Any, places: dict[int, Place]) -> Any:
        if not len(rows):
            return rows
        found, parts, origins = self._output.index(edition).lookup(words[rows])
        hits = {
            int(row): Place(edition, int(part), int(origin))
            for row, part, origin in zip(rows[found], parts[found], origins[found], strict=True)
        }
        if edition != self._current:
            self._drop_unfit(edition, hits)
        places |= hits
        return np.array([row for row in rows.tolist() if row not in hits], np.int64)

    def _drop_unfit(self, edition: int, hits: dict[int, Place]) -> None:
        is_carry = edition in self._older
        if not (is_carry or self._job.retry_errors) or not hits:
            return
        changed = self._job.carry[1] if is_carry and self._job.carry else frozenset()
        by_part: dict[int, list[tuple[int, int]]] = {}
        for row, place in hits.items():
            by_part.setdefault(place.part, []).append((row, place.row))
        for part, pairs in by_part.items():
            record = self._output.records[edition][part]
            answers = self._output.folders[edition].answers(record, [origin for _, origin in pairs])
            statuses = answers.column("status").to_pylist()
            tags = answers.column("tags").to_pylist() if changed else [()] * len(pairs)
            for (row, _), status, held in zip(pairs, statuses, tags, strict=True):
                if status != "ok" or any(tag["tag"] in changed for tag in held):
                    del hits[row]


class EditionRun:
    """Brings an edition to its end. `totals` counts what this process did."""

    def __init__(
        self,
        output: Output,
        edition: EditionRecord,
        job: Job,
        stream: Stream,
        *,
        tell: Callable[[Totals], None] = lambda _: None,
    ) -> None:
        self.totals = Totals()
        self._output = output
        self._edition = edition
        self._job = job
        self._stream = stream
        self.tell = tell
        self._told = 0.0
        self._parts: deque[OpenPart] = deque()
        self._pending: dict[bytes, Place] = {}
        self._waiting: list[_Waiting] = []
        self._with_engine: deque[_Waiting] = deque()
        self._asked: set[str] = set()
        self._num_renamed = 0
        self._is_ascending = True
        self._journal: dict[bytes, Tagging] = {}
        self._journaled: set[bytes] = set()
        self._journal_time = time.monotonic()

    def run(self) -> None:
        """Tag, and enter part after part.

        Raises:
            DataError: the catalogue cannot be read or the output cannot be written.
            EngineError: the engine died.
        """
        number, output, job = self._edition.number, self._output, self._job
        records = output.records[number]
        last = records[max(records)] if records else None
        self._recovered = {key: Tagging.model_validate_json(text) for key, text in output.ledger.journal().items()}
        self._journaled.update(self._recovered)
        self._lookup = Lookup(output, job, number)
        chunks = ReadAhead(
            read_chunks(
                job.files,
                job.reading,
                RowKeys(job.context),
                part_rows=job.part_rows,
                first_part=0 if last is None else last.number + 1,
                start=None if last is None else last.position,
                keep=[name for name, _ in job.keep],
                interpret=job.interpret,
                say=job.say,
            )
        )
        self._writer = PartWriter(
            output.ledger, output.folders, output.records, number, keep=job.keep, step=output.step
        )
        try:
            for tagging in self._stream(self._products(chunks)):
                waiting = self._with_engine.popleft() if self._with_engine else None
                check_pair(None if waiting is None else waiting.asked, tagging)
                assert waiting is not None
                self._asked.remove(waiting.asked)
                self._take(waiting.part, waiting.row, waiting.key, tagging)
                self._journal[waiting.key] = tagging
                self.totals.tagged += 1
                if waiting.part.is_whole and not waiting.part.missing:
                    self._submit_whole_parts()
                self._after_some()
            check_pair(self._with_engine[0].asked if self._with_engine else None, None)
            self._submit_whole_parts()
        except BaseException:
            self._save_journal()
            raise
        finally:
            chunks.close()
            self._close_writer()
            self.tell(self.totals)

    def _close_writer(self) -> None:
        try:
            self._writer.close()
        finally:
            self._learn_done()

    def _products(self, chunks: Iterable[Chunk]) -> Iterator[Product]:
        for chunk in chunks:
            self._enter(chunk)
            self._submit_whole_parts()
            if len(self._waiting) >= self._job.window:
                yield from self._release()
        if self._parts:
            self._parts[-1].is_whole = True
        yield from self._release()

    def _release(self) -> Iterator[Product]:
        """Yield the waiting products, similar lengths together; windows end where the next one begins."""
        window, self._waiting = self._waiting, []
        window.sort(key=lambda waiting: waiting.length, reverse=not self._is_ascending)
        self._is_ascending = not self._is_ascending
        for waiting in window:
            self._with_engine.append(waiting)
            product_id, title, description, attributes, _ = waiting.fields
            waiting.asked = self._own_id(product_id)
            yield Product(id=waiting.asked, title=title, description=description, attributes=attributes)

    def _own_id(self, product_id: str) -> str:
        """Return the id or, while another product with it is in the engine's hands, one of its own.

        Rows may share an id; were it the same in the engine, nothing would tell that two of them changed places.
        """
        own = product_id
        while own in self._asked:
            self._num_renamed += 1
            own = f"{product_id} ({self._num_renamed})"
        self._asked.add(own)
        return own

    def _enter(self, chunk: Chunk) -> None:
        part = self._part_of(chunk)
        self._learn_done()
        places, carried = self._lookup(chunk)
        first = len(part.ids)
        part.ids += chunk.ids
        part.keys += chunk.keys
        part.kept += chunk.kept
        part.segments.append((chunk.file, chunk.first_row, len(chunk)))
        part.position = chunk.position
        part.missing += len(chunk)
        if len(part.ids) == self._job.part_rows:
            part.is_whole = True
        edition, number, pending, keys = self._edition.number, part.number, self._pending, chunk.keys
        counts: Counter[str] = Counter()
        for row, fields in enumerate(chunk.fields):
            if fields is None:
                counts["malformed"] += 1
                self._take(part, first + row, b"", self._malformed(chunk.ids[row], chunk.bad[row]))
                continue
            key = keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]
            place = places.get(row)
            kind = "reused"
            if place is None:
                place = pending.get(key)
                kind = "duplicates"
            elif place.edition == edition:
                kind = "duplicates"
            elif row in carried:
                kind = "carried"
            if place is not None:
                counts[kind] += 1
                part.copies.append((first + row, place))
                part.missing -= 1
                self.totals.rows += 1
                continue
            pending[key] = Place(edition, number, first + row)
            part.new_keys.append(key)
            recovered = self._recovered.pop(key, None)
            if recovered is not None:
                counts["tagged"] += 1
                self._take(part, first + row, key, recovered)
                continue
            counts["tagged"] += 1
            length = len(fields.title) + len(fields.description) + sum(map(len, fields.attributes.values()))
            self._waiting.append(_Waiting(part, first + row, key, fields, length))
        part.counts += counts
        self.totals.duplicates += counts["duplicates"]
        self.totals.reused += counts["reused"]
        self.totals.carried += counts["carried"]
        self.totals.malformed += counts["malformed"]

    def _part_of(self, chunk: Chunk) -> OpenPart:
        if not self._parts or self._parts[-1].number != chunk.part:
            self._parts.append(OpenPart(chunk.part))
        return self._parts[-1]

    def _malformed(self, product_id: str, reason: str) -> Tagging:
        return Tagging(
            id=product_id, status="error", reason=reason, model=self._job.model, vocabulary=self._job.vocabulary
        )

    def _take(self, part: OpenPart, row: int, key: bytes, tagging: Tagging) -> None:
        part.taggings[row] = tagging
        part.missing -= 1
        self.totals.rows += 1
        if tagging.status != "ok":
            self.totals.failed += 1
        elif self._job.accept_at is not None and not tagging.is_sure(self._job.accept_at):
            self.totals.for_review += 1

    def _submit_whole_parts(self) -> None:
        while self._parts and self._parts[0].is_whole and not self._parts[0].missing:
            part = self._parts.popleft()
            part.journaled = [key for key in part.new_keys if key in self._journaled] if self._journaled else []
            for key in part.new_keys:
                self._journal.pop(key, None)
            self._writer.submit(part)

    def _learn_done(self) -> None:
        for part in self._writer.done():
            self._output.add_keys(self._edition.number, part.number, bytes(part.keys))
            self._journaled.difference_update(part.journaled)
            for key in part.new_keys:
                del self._pending[key]

    def _after_some(self) -> None:
        now = time.monotonic()
        if now - self._told > _TELL_S:
            self._told = now
            self.tell(self.totals)
        if now - self._journal_time > _JOURNAL_S:
            self._journal_time = now
            self._write_journal()

    def _write_journal(self) -> None:
        if self._journal:
            self._writer.submit({key: tagging.to_json() for key, tagging in self._journal.items()})
            self._journaled.update(self._journal)
            self._journal = {}

    def _save_journal(self) -> None:
        """Keep what the engine gave, on the way out for another reason; a second failure would hide the first."""
        with contextlib.suppress(HangtagError):
            self._write_journal()


def count_known(output: Output, job: Job, tell: Callable[[int], None] = lambda _: None) -> Mapping[str, int]:
    """Return what a run would do with the rows, by kind, without doing it: the figures of a dry run.

    Flat in memory; duplicates among rows that are not tagged yet are found by an index in a temporary folder.
    """
    lookup = Lookup(output, job, None)
    counts: Counter[str] = Counter(dict.fromkeys(("rows", "malformed", "duplicates", "reused", "carried"), 0))
    journal = output.ledger.journal().keys()
    with tempfile.TemporaryDirectory() as folder:
        seen = KeyIndex(Path(folder), 0, lambda _: b"")
        chunks = read_chunks(
            job.files, job.reading, RowKeys(job.context), part_rows=job.part_rows, interpret=job.interpret
        )
        for number, chunk in enumerate(chunks):
            places, carried = lookup(chunk)
            is_seen, _, _ = seen.lookup(split_keys(chunk.keys))
            new: dict[bytes, None] = {}
            counts["rows"] += len(chunk)
            for row, fields in enumerate(chunk.fields):
                key = chunk.keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]
                if fields is None:
                    counts["malformed"] += 1
                elif row in places:
                    counts["carried" if row in carried else "reused"] += 1
                elif is_seen[row] or key in new:
                    counts["duplicates"] += 1
                else:
                    new[key] = None
                    counts["reused"] += key in journal
            seen.add(number, b"".join(new))
            tell(len(chunk))
        seen.close()
    known = sum(counts[name] for name in ("malformed", "duplicates", "reused", "carried"))
    return dict(counts) | {"to_tag": counts["rows"] - known}
