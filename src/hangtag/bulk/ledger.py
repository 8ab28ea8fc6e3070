"""What is done, in SQLite: editions, their parts, and the taggings of the part in flight.

One row a part, not a row a product: at ten million products the ledger has a thousand rows, and opening it takes
milliseconds. A part is entered in one transaction, after its files are durable; only what stands here counts.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hangtag.durable import Step, no_step
from hangtag.errors import DataError
from hangtag.formats.rows import Position

LEDGER = "ledger.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS editions (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL,      -- running, complete, left (another one was begun before it was complete)
    signature TEXT NOT NULL,  -- JSON: what must be the same for a run to go on with this edition
    context TEXT NOT NULL,    -- the digest that its keys hold
    details TEXT NOT NULL,    -- JSON: ingredients of the context, vocabulary, format
    started TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS parts (
    edition INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record TEXT NOT NULL,     -- JSON: see PartRecord
    PRIMARY KEY (edition, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
    key BLOB PRIMARY KEY,
    tagging TEXT NOT NULL     -- JSON, of a product whose part is not done
) WITHOUT ROWID;
"""

State = Literal["running", "complete", "left"]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A part as the ledger knows it.

    `position` is where reading goes on after it; `segments` lists (file number, first row in the file, number of
    rows) of its rows in order. `sha256` and `num_bytes` are of the part, `index_bytes` of its file in index/.
    """

    number: int
    num_rows: int
    position: Position
    segments: tuple[tuple[int, int, int], ...]
    num_bytes: int
    sha256: str
    index_bytes: int
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return it as JSON text."""
        names = ("number", "num_rows", "position", "segments", "num_bytes", "sha256", "index_bytes", "counts")
        return json.dumps({name: getattr(self, name) for name in names}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> PartRecord:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        values["position"] = Position(*values["position"])
        values["segments"] = tuple(tuple(segment) for segment in values["segments"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class EditionRecord:
    """One pass over a catalogue; see the comments of the ledger's schema."""

    number: int
    state: State
    signature: str
    context: str
    details: dict[str, Any]
    started: str
    seconds: float = 0.0


class Ledger:
    """The ledger of an output folder. Usable from several threads, one at a time. Close it after use."""

    def __init__(self, folder: Path, *, step: Step = no_step) -> None:
        """Open or make it.

        Raises:
            DataError: it is damaged, of another version, or cannot be written.
        """
        self.path = folder / LEDGER
        self._step = step
        with self._explained():
            self._database = sqlite3.connect(
                self.path, check_same_thread=False, isolation_level=None, timeout=30.0
            )
            try:
                self._open()
            except sqlite3.Error:
                self._database.close()
                raise

    def _open(self) -> None:
        (found,) = self._database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _VERSION):
            self._database.close()
            raise DataError(f"{self.path}: version {found}, expected {_VERSION}; another hangtag wrote it")
        self._database.execute("PRAGMA journal_mode=WAL")
        # FULL syncs the log at every commit: a part that was entered survives a power failure.
        self._database.execute("PRAGMA synchronous=FULL")
        problems = self._database.execute("PRAGMA quick_check").fetchall()
        if problems != [("ok",)]:
            raise sqlite3.DatabaseError(str(problems[0][0]).splitlines()[0])
        if not found:
            self._database.executescript(_SCHEMA)
            self._database.execute(f"PRAGMA user_version={_VERSION}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{self.path}: {error}; what is entered is safe: free space or give write access, then repeat "
                "the same command"
            ) from None
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{self.path}: damaged ({error}); repeat the command with --repair, which makes it again from the "
                "parts"
            ) from None

    @contextlib.contextmanager
    def _transaction(self, name: str) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._step(f"{name} before commit")
                self._database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise
            self._step(f"{name} committed")

    def editions(self) -> list[EditionRecord]:
        """Return all editions, oldest first."""
        columns = "number, state, signature, context, details, started, seconds"
        with self._explained():
            rows = self._database.execute(f"SELECT {columns} FROM editions ORDER BY number").fetchall()
            return [
                EditionRecord(number, state, signature, context, json.loads(details), started, seconds)
                for number, state, signature, context, details, started, seconds in rows
            ]

    def begin(self, number: int, signature: str, context: str, details: Mapping[str, Any]) -> EditionRecord:
        """Enter an edition as running; one that was running is left."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(details, ensure_ascii=False)
        with self._transaction("edition") as database:
            database.execute("UPDATE editions SET state='left' WHERE state='running'")
            database.execute(
                "INSERT INTO editions (number, state, signature, context, details, started) VALUES (?,?,?,?,?,?)",
                (number, "running", signature, context, text, started),
            )
        return EditionRecord(number, "running", signature, context, json.loads(text), started)

    def parts(self, edition: int) -> list[PartRecord]:
        """Return an edition's parts in order."""
        with self._explained():
            rows = self._database.execute(
                "SELECT record FROM parts WHERE edition=? ORDER BY number", (edition,)
            ).fetchall()
            return [PartRecord.from_json(record) for (record,) in rows]

    def add_part(
        self, edition: int, part: PartRecord, *, seconds: float = 0.0, journaled: Iterable[bytes] = ()
    ) -> None:
        """Enter a part whose files are durable, add to the edition's time, and drop its rows from the journal."""
        with self._transaction("part") as database:
            database.execute("INSERT INTO parts VALUES (?,?,?)", (edition, part.number, part.to_json()))
            database.execute("UPDATE editions SET seconds=seconds+? WHERE number=?", (seconds, edition))
            database.executemany("DELETE FROM journal WHERE key=?", [(key,) for key in journaled])

    def drop_part(self, edition: int, number: int) -> None:
        """Take a lost part out; the edition can then not be gone on with."""
        with self._transaction("repair") as database:
            database.execute("DELETE FROM parts WHERE edition=? AND number=?", (edition, number))
            database.execute("UPDATE editions SET state='left' WHERE number=?", (edition,))

    def restore(self, edition: EditionRecord, parts: Iterable[PartRecord]) -> None:
        """Enter an edition that was read back from its files."""
        with self._transaction("repair") as database:
            database.execute(
                "INSERT INTO editions (number, state, signature, context, details, started) VALUES (?,?,?,?,?,?)",
                (edition.number, edition.state, edition.signature, edition.context,
                 json.dumps(edition.details, ensure_ascii=False), edition.started),
            )  # fmt: skip
            database.executemany(
                "INSERT INTO parts VALUES (?,?,?)", [(edition.number, p.number, p.to_json()) for p in parts]
            )

    def journal(self) -> dict[bytes, str]:
        """Return the taggings, as JSON text, of products whose parts were in flight."""
        with self._explained():
            return dict(self._database.execute("SELECT key, tagging FROM journal"))

    def add_to_journal(self, taggings: Mapping[bytes, str]) -> None:
        """Keep taggings of products whose part is not done."""
        with self._transaction("journal") as database:
            database.executemany("INSERT OR REPLACE INTO journal VALUES (?,?)", taggings.items())

    def complete(self, edition: int, seconds: float) -> None:
        """Enter an edition as complete, forget all others and the journal."""
        with self._transaction("edition") as database:
            database.execute(
                "UPDATE editions SET state='complete', seconds=seconds+? WHERE number=?", (seconds, edition)
            )
            database.execute("DELETE FROM editions WHERE number<>?", (edition,))
            database.execute("DELETE FROM parts WHERE edition<>?", (edition,))
            database.execute("DELETE FROM journal")

    def close(self) -> None:
        """Close the database."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
