"""Rows of variants joined to their products, or standing for themselves with the product's text."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from hangtag.formats.fields import Format
from hangtag.formats.rows import Position, Reader, Row, ShopRow

_BATCH = 512
Rows = Iterator[dict[str, Any] | str]
Numbered = Iterator[Row]


class IteratedRows:
    """A reader over an iterator of rows; going on, it passes over those that were read."""

    offset = 0

    def __init__(self, rows: Rows, start: Position) -> None:
        self._rows = enumerate(rows, start=1)
        self._source = rows
        for _ in islice(self._rows, start.row):
            pass

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end."""
        return list(islice(self._rows, count))

    def close(self) -> None:
        """Close the file."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


def every_row(reader: Reader) -> Numbered:
    """Yield the rows of a reader with their numbers; it is closed at the end."""
    try:
        while batch := reader.read(_BATCH):
            yield from batch
    finally:
        reader.close()


def adjacent(rows: Numbered, form: Format, *, is_separate: bool) -> Rows:
    """Yield a row for each run of rows with one key; what cannot be read comes after the run it stands in."""
    first: Row | None = None
    others: list[dict[str, Any]] = []
    bad: list[str] = []
    for number, row in rows:
        if isinstance(row, str):
            bad.append(row)
            continue
        if first is not None and form.key(row) == form.key(_cells(first)) and form.parent(row) is not None:
            others.append(row)
            continue
        if first is not None:
            yield from _product(first, others, form, is_separate)
        yield from bad
        first, others, bad = (number, row), [], []
    if first is not None:
        yield from _product(first, others, form, is_separate)
    yield from bad


def _cells(row: Row) -> dict[str, Any]:
    assert isinstance(row[1], dict)
    return row[1]


def _product(first: Row, others: list[dict[str, Any]], form: Format, is_separate: bool) -> Rows:
    number, cells = first[0], _cells(first)
    if (parent := form.parent(cells)) is not None:
        yield f"{parent or 'a row'}: a variant without its product; expected a row with a title before it"
        return
    if not is_separate:
        yield ShopRow.of(cells, number, others)
        return
    yield ShopRow.of(cells, number, own_id=form.own_id(cells) or None)
    for row in others:
        if own := form.own_id(row):
            yield ShopRow.of(_completed(cells, row), number, own_id=own)


def _completed(product: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """Return a variant's cells with the product's where it has none."""
    return product | {name: value for name, value in variant.items() if value not in ("", None)}


def by_parent(open_rows: Callable[[], Numbered], form: Format, *, is_separate: bool) -> Rows:
    """Yield a row for each product of a file in which variants name their product, wherever they stand.

    The file is read twice. Between, variants (or products, where these stand for themselves) lie in a temporary
    database on disk, so that memory stays flat.
    """
    with closing(sqlite3.connect("")) as store:
        _gather(store, open_rows(), form, is_separate)
        for number, row in open_rows():
            if isinstance(row, str):
                yield row
                continue
            parent = form.parent(row)
            if parent is None:
                yield ShopRow.of(row, number, _variants(store, form.key(row)))
                continue
            found = store.execute("SELECT row FROM product WHERE key = ?", (parent,)).fetchone()
            if found is None:
                own = form.own_id(row) or "a row"
                yield f"{own}: a variation whose Parent {parent!r} is no product of the file"
            elif is_separate:
                yield ShopRow.of(_completed(json.loads(found[0]), row), number, own_id=form.own_id(row) or None)


def _gather(store: sqlite3.Connection, rows: Numbered, form: Format, is_separate: bool) -> None:
    store.execute("CREATE TABLE product (key TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID")
    store.execute("CREATE TABLE variant (parent TEXT, number INTEGER, row TEXT)")
    for number, row in rows:
        if isinstance(row, str):
            continue
        parent, text = form.parent(row), json.dumps(row, default=str)
        if parent is None:
            keys = ((key, text if is_separate else "") for key in form.key(row))
            store.executemany("INSERT OR IGNORE INTO product VALUES (?, ?)", keys)
        elif not is_separate:
            store.execute("INSERT INTO variant VALUES (?, ?, ?)", (parent, number, text))
    store.execute("CREATE INDEX of_parent ON variant (parent, number)")


def _variants(store: sqlite3.Connection, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    marks = ", ".join("?" * len(keys))
    found = store.execute(f"SELECT row FROM variant WHERE parent IN ({marks}) ORDER BY number", keys)
    return [json.loads(row) for (row,) in found]
