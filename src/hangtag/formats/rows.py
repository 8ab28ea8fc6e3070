"""What all readers have in common: rows, positions, how the user wants a file read, names of columns."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, Literal, NamedTuple, Protocol

from hangtag.errors import DataError

FIELDS = ("id", "title", "description", "attributes", "tags")
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a damaged compressed file raises."""

Row = tuple[int, dict[str, Any] | str]
"""The row's number in its file, from 1 (lines in JSON Lines; a header is not counted; products where several rows
make one), and the row, or why it cannot be read."""


class Unreadable(str):
    """Why a row cannot be read. `cells` is what it holds all the same, U+FFFD for bytes that are no text."""

    __slots__ = ("cells",)
    cells: dict[str, Any]

    @classmethod
    def of(cls, reason: str, cells: dict[str, Any]) -> Unreadable:
        """Return the reason with what the row holds."""
        made = cls(reason)
        made.cells = cells
        return made


class ShopRow(dict[str, Any]):
    """The row of a product in a file where a product may have several: `others` are the rows of its variants.

    `own_id` is the id of a variant that stands for itself, `number` that of the row in the file.
    """

    __slots__ = ("number", "others", "own_id")
    others: list[dict[str, Any]]
    own_id: str | None
    number: int

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        number: int,
        others: Iterable[dict[str, Any]] = (),
        *,
        own_id: str | None = None,
    ) -> ShopRow:
        """Return the row with the rows that belong to it."""
        made = cls(row)
        made.number, made.others, made.own_id = number, list(others), own_id
        return made


class Position(NamedTuple):
    """Where reading goes on: the file's number, how many of its rows were read, and the byte after them.

    The byte is 0 where a format cannot seek: its first rows are read again and passed over.
    """

    file: int = 0
    row: int = 0
    offset: int = 0


class Source(Protocol):
    """A file to read."""

    @property
    def path(self) -> str:
        """Its path or URI."""

    @property
    def kind(self) -> str:
        """What its name ends in, in small letters and without .gz."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def open(self) -> IO[bytes]:
        """Return its bytes, decompressed."""

    def random_access(self) -> Any:
        """Return a path, or a file behind a URI that can be read in any order."""


class Reader(Protocol):
    """Reads the rows of one file in order; `offset` is the byte after what was read, 0 where it cannot seek."""

    offset: int

    def read(self, count: int) -> list[Row]:
        """Return at most `count` rows, none at the end. Raises DataError: the file is not what it seems."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the user wants files read; what is None is recognised by content.

    `columns` maps fields of a product (or attributes.NAME) to columns. `variants` says whether the variants of a
    product are one row or rows of their own. `label_column` is a column that is read as the tags. `known_tags`, in
    small letters, help to tell what separates tags.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    variants: Literal["joined", "separate"] = "joined"
    tag_separator: str | None = None
    label_column: str | None = None
    known_tags: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """The columns that a product in a plain file may be read from."""
        given = {self.columns.get(name, name) for name in FIELDS} | set(self.columns.values())
        return given | ({self.label_column} if self.label_column else set())

    def settings(self) -> dict[str, Any]:
        """Return what differs from the defaults, the columns left out: part of what a run is known by."""
        names = ("format", "encoding", "delimiter", "variants", "tag_separator", "label_column")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value not in (None, "joined")}


def canonical(name: str) -> str:
    """Return a column's name as it is compared: without case, mark of byte order, underscores and spare spaces.

    >>> canonical(" Image_Link ")
    'image link'
    """
    return " ".join(name.replace("\ufeff", "").replace("_", " ").casefold().split())


@lru_cache(maxsize=256)
def columns_by_name(header: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each canonical name; of equal names the first, unless one is written so exactly."""
    found: dict[str, str] = {}
    for column in header:
        name = canonical(column)
        if name not in found or column == name:
            found[name] = column
    return found


def column_of(header: tuple[str, ...], name: str) -> str | None:
    """Return the column that a user's word means, None if there is none."""
    return name if name in header else columns_by_name(header).get(canonical(name))


def check_columns(reading: Reading, row: Mapping[str, Any], source: str) -> None:
    """Raise DataError if a file's first row lacks a column that the user named."""
    named = dict(reading.columns)
    if reading.label_column:
        named["tags"] = reading.label_column
    for name, column in named.items():
        if column_of(tuple(row), column) is None:
            raise DataError(
                f"{source}: no column {column!r} (wanted for `{name}`); the first row has: {', '.join(row)}"
            )


def with_columns(reading: Reading, row: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a product with those that the user reads from columns of their own."""
    if not reading.columns:
        return fields
    header = tuple(row)
    made = dict(fields)
    single = {}
    for name, column in reading.columns.items():
        value = row.get(column_of(header, column) or column)
        if name.startswith("attributes."):
            single[name.removeprefix("attributes.")] = value
        else:
            made[name] = value
    if single:
        base = made.get("attributes")
        made["attributes"] = (base if isinstance(base, dict) else {}) | single
    return made
