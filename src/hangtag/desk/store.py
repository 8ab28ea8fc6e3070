"""What was decided, by whom and when: an SQLite file that loses nothing, whoever else writes it."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hangtag.desk.queue import Entry
from hangtag.errors import DataError
from hangtag.product import Product
from hangtag.tagging import ScoredTag

LEASE_S = 15 * 60.0
Decision = Literal["accept", "change", "skip"]
Order = Literal["least", "informative", "random", "accepted"]
ORDERS: dict[str, str] = {
    "least": "confidence, position",
    "informative": "information, position",
    "random": "draw, position",
    "accepted": "draw, position",
}
_FORM = 1
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE products (
    position INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, entry TEXT NOT NULL, is_sample INTEGER NOT NULL,
    confidence REAL NOT NULL, draw INTEGER NOT NULL, information REAL NOT NULL, needed INTEGER NOT NULL,
    is_open INTEGER NOT NULL
);
CREATE INDEX by_confidence ON products (is_open, is_sample, confidence, position);
CREATE INDEX by_information ON products (is_open, is_sample, information, position);
CREATE INDEX by_draw ON products (is_open, is_sample, draw, position);
CREATE INDEX all_by_draw ON products (is_sample, draw, position);
CREATE TABLE facets (
    facet TEXT, confidence REAL, position INTEGER, PRIMARY KEY (facet, confidence, position)
) WITHOUT ROWID;
CREATE TABLE leases (position INTEGER PRIMARY KEY, reviewer TEXT NOT NULL, until REAL NOT NULL);
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER NOT NULL, reviewer TEXT NOT NULL,
    decision TEXT NOT NULL, tags TEXT NOT NULL, comment TEXT NOT NULL, seconds REAL, at TEXT NOT NULL,
    is_valid INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX one_decision ON decisions (position, reviewer) WHERE is_valid;
CREATE INDEX by_reviewer ON decisions (reviewer, is_valid, number);
"""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that counts, with the entry that it is about."""

    entry: Entry
    decision: Decision
    tags: tuple[str, ...]
    reviewer: str
    comment: str
    at: str


@dataclass(frozen=True, slots=True)
class Queued:
    """An entry with where the queue has it: its draw (uniform, from a hash) and its place by information."""

    entry: Entry
    key: bytes
    draw: int
    information: float


class Store:
    """The reviews of one queue. One process holds it; its methods may be called by several threads.

    A decision is on the disk when `decide` returns.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or make the file. Raises DataError: it cannot be written, or another version made it."""
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            [[form]] = self._database.execute("PRAGMA user_version")
            if not form:
                self._database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={_FORM};COMMIT;")
                self.remember("secret", secrets.token_hex(32))
        except sqlite3.Error as error:
            raise DataError(f"{path}: cannot be used for reviews ({error}); expected a writable folder") from None
        if form not in (0, _FORM):
            raise DataError(f"{path}: form {form} of another version of hangtag; expected {_FORM}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def recall(self, name: str) -> str | None:
        """Return what was remembered under a name."""
        found = self._read("SELECT value FROM about WHERE name = ?", (name,))
        return str(found[0][0]) if found else None

    def remember(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def load(self, entries: Iterable[Queued], *, digest: str, twice: float = 0.0) -> int:
        """Put a queue in place of the one before and return its size; what was decided stays.

        `digest` names the queue: nothing is done where it is the one that is there. A product that was in the
        queue before, with the same tags, is the same one. `twice` is the share of products, drawn at random, that
        two people are to see.
        """
        if self.recall("queue") == digest:
            return int(self.recall("size") or 0)
        size = 0
        with self._transaction() as database:
            database.execute("UPDATE products SET is_open = -1")
            database.execute("DELETE FROM facets")
            for queued in entries:
                size += 1
                self._put(database, queued, 2 if queued.draw < twice * 2**63 else 1)
            database.execute(
                "UPDATE products SET is_open = (SELECT COUNT(*) FROM decisions d "
                "WHERE d.position = products.position AND is_valid AND decision != 'skip') < needed "
                "WHERE is_open = 1"
            )
            database.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)", [("queue", digest), ("size", str(size))]
            )
        return size

    @staticmethod
    def _put(database: sqlite3.Connection, queued: Queued, needed: int) -> None:
        entry = queued.entry
        values = (
            queued.key, _to_json(entry), entry.is_sample, entry.confidence, queued.draw, queued.information, needed
        )  # fmt: skip
        [[position]] = database.execute(
            "INSERT INTO products (key, entry, is_sample, confidence, draw, information, needed, is_open) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, "
            "is_sample = excluded.is_sample, information = excluded.information, needed = excluded.needed, "
            "is_open = 1 RETURNING position",
            values,
        ).fetchall()
        if not entry.is_sample:
            least: dict[str, float] = {}
            for tag in entry.tags:
                least[tag.facet] = min(least.get(tag.facet, 1.0), tag.confidence or 0.0)
            database.executemany(
                "INSERT OR REPLACE INTO facets VALUES (?, ?, ?)",
                [(facet, confidence, position) for facet, confidence in least.items()],
            )

    def entry(self, position: int) -> Entry:
        """Return the product at a position. Raises KeyError: there is none."""
        found = self._read("SELECT entry FROM products WHERE position = ?", (position,))
        if not found:
            raise KeyError(position)
        return _from_json(found[0][0])

    def lease(self, reviewer: str, order: str, facet: str = "") -> int | None:
        """Return the position of the reviewer's next product, None where nothing is left for them.

        Nobody else gets it for `LEASE_S` seconds. `order` is one of `ORDERS`; with a facet, the products with a
        tag of it, least sure there first. Asked again before a decision, it returns the same product.
        """
        now = self._clock()
        with self._transaction() as database:
            database.execute("DELETE FROM leases WHERE until < ?", (now,))
            wanted = f"{order}:{facet}"
            held = database.execute("SELECT position FROM leases WHERE reviewer = ?", (reviewer,)).fetchall()
            if held and self._order_of(reviewer) == wanted:
                position: int | None = held[0][0]
            else:
                database.execute("DELETE FROM leases WHERE reviewer = ?", (reviewer,))
                found = database.execute(*_next(reviewer, order, facet)).fetchall()
                position = found[0][0] if found else None
            database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (f"order {reviewer}", wanted))
            if position is not None:
                database.execute(
                    "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (position, reviewer, now + LEASE_S)
                )
        return position

    def _order_of(self, reviewer: str) -> str | None:
        return self.recall(f"order {reviewer}")

    def decide(
        self,
        position: int,
        reviewer: str,
        decision: Decision,
        tags: Sequence[str] = (),
        *,
        comment: str = "",
        seconds: float | None = None,
    ) -> None:
        """Keep a decision; one that the same reviewer made before gives way, so sending it twice does no harm.

        Raises:
            KeyError: there is no such product.
        """
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        with self._transaction() as database:
            if not database.execute("SELECT 1 FROM products WHERE position = ?", (position,)).fetchall():
                raise KeyError(position)
            database.execute(
                "UPDATE decisions SET is_valid = 0 WHERE position = ? AND reviewer = ? AND is_valid",
                (position, reviewer),
            )
            names = json.dumps(list(tags), ensure_ascii=False)
            database.execute(
                "INSERT INTO decisions (position, reviewer, decision, tags, comment, seconds, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (position, reviewer, decision, names, comment, seconds, at),
            )
            database.execute("DELETE FROM leases WHERE position = ? AND reviewer = ?", (position, reviewer))
            _count(database, position)

    def undo(self, reviewer: str) -> int | None:
        """Take back the reviewer's last decision and return its product, leased to them; None: there is none."""
        with self._transaction() as database:
            found = database.execute(
                "SELECT number, position FROM decisions WHERE reviewer = ? AND is_valid = 1 "
                "ORDER BY number DESC LIMIT 1",
                (reviewer,),
            ).fetchall()
            if not found:
                return None
            number, position = found[0]
            database.execute("UPDATE decisions SET is_valid = 0 WHERE number = ?", (number,))
            _count(database, position)
            database.execute("DELETE FROM leases WHERE reviewer = ?", (reviewer,))
            until = self._clock() + LEASE_S
            database.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (position, reviewer, until))
        return int(position)

    def decided(self) -> Iterator[Decided]:
        """Yield the decisions that count, in the order in which they were made."""
        after = 0
        while rows := self._read(
            "SELECT number, entry, decision, tags, reviewer, comment, at FROM decisions JOIN products "
            "USING (position) WHERE is_valid AND number > ? ORDER BY number LIMIT 1000",
            (after,),
        ):
            for after, entry, decision, tags, reviewer, comment, at in rows:  # noqa: B007
                yield Decided(_from_json(entry), decision, tuple(json.loads(tags)), reviewer, comment, at)

    def num_decided(self) -> int:
        """Return how many products of the queue need no further decision."""
        return int(self._read("SELECT COUNT(*) FROM products WHERE is_open = 0")[0][0])

    def by_reviewer(self) -> list[tuple[str, int, float | None]]:
        """Return each reviewer's number of decisions and their median seconds a product."""
        rows = self._read("SELECT reviewer, seconds FROM decisions WHERE is_valid ORDER BY reviewer, seconds")
        spent: dict[str, list[float | None]] = {}
        for reviewer, seconds in rows:
            spent.setdefault(reviewer, []).append(seconds)
        found = []
        for reviewer, all_seconds in spent.items():
            known = [seconds for seconds in all_seconds if seconds is not None]
            found.append((reviewer, len(all_seconds), known[len(known) // 2] if known else None))
        return found

    def drawn(self, *, is_sample: bool) -> Iterator[tuple[Entry, tuple[str, ...]]]:
        """Yield products with the tags that they should have, from the first in random order up to the first gap.

        So they are a random sample, in whatever order people worked. Products that were only skipped are left out;
        of two decisions the first counts.
        """
        rows = self._read(
            "SELECT position, entry FROM products WHERE is_sample = ? AND is_open >= 0 ORDER BY draw, position "
            "LIMIT (SELECT 1 + COUNT(DISTINCT position) FROM decisions WHERE is_valid)",
            (is_sample,),
        )
        for position, entry in rows:
            made = self._read(
                "SELECT decision, tags FROM decisions WHERE position = ? AND is_valid ORDER BY number", (position,)
            )
            if not made:
                return
            labelled = [json.loads(tags) for decision, tags in made if decision != "skip"]
            if labelled:
                yield _from_json(entry), tuple(labelled[0])

    def seen_twice(self) -> list[list[frozenset[str]]]:
        """Return the tag sets of each product that two people or more decided."""
        rows = self._read(
            "SELECT position, tags FROM decisions WHERE is_valid AND decision != 'skip' AND position IN (SELECT "
            "position FROM decisions WHERE is_valid AND decision != 'skip' GROUP BY position HAVING COUNT(*) > 1)"
        )
        found: dict[int, list[frozenset[str]]] = {}
        for position, tags in rows:
            found.setdefault(position, []).append(frozenset(json.loads(tags)))
        return list(found.values())


def _next(reviewer: str, order: str, facet: str) -> tuple[str, dict[str, Any]]:
    """Return the query for the next product."""
    free = (
        "is_open = 1 AND is_sample = :is_sample "
        "AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.position = p.position) "
        "AND NOT EXISTS (SELECT 1 FROM decisions d "
        "WHERE d.position = p.position AND d.reviewer = :reviewer AND d.is_valid)"
    )
    values = {"reviewer": reviewer, "is_sample": order == "accepted", "facet": facet}
    if facet:
        return (
            f"SELECT p.position FROM facets f JOIN products p USING (position) WHERE f.facet = :facet AND {free} "
            "ORDER BY f.confidence, f.position LIMIT 1"
        ), values
    return f"SELECT position FROM products p WHERE {free} ORDER BY {ORDERS[order]} LIMIT 1", values


def _count(database: sqlite3.Connection, position: int) -> None:
    """Say whether a product of the queue needs another decision."""
    database.execute(
        "UPDATE products SET is_open = (SELECT COUNT(*) FROM decisions WHERE position = :position AND is_valid "
        "AND decision != 'skip') < needed WHERE position = :position AND is_open >= 0",
        {"position": position},
    )


def _to_json(entry: Entry) -> str:
    document = {
        "product": entry.product.model_dump(exclude={"tags"}),
        "tags": [tag.model_dump() for tag in entry.tags],
        "status": entry.status,
        "is_sample": entry.is_sample,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _from_json(text: str) -> Entry:
    document = json.loads(text)
    tags = tuple(ScoredTag(**tag) for tag in document["tags"])
    return Entry(Product(**document["product"]), tags, document["status"], document["is_sample"])
