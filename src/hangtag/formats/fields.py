"""What a shop's format is to a reader, and what the formats share in making products of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from hangtag.formats.html_text import shown_text
from hangtag.formats.rows import canonical, columns_by_name

Grouping = Literal["adjacent", "parent"] | None
"""How the rows of a product's variants are found: they follow it, or they name it."""


class Format(Protocol):
    """Turns the rows of one shop's files into products.

    `name` is what --from takes, `shown` what messages say. Tags are written to the first of `tag_columns` that a
    file has, else to a new one with the last's name. `separator` is what stands between tags (None: decided by the
    column); with `is_escaped` a backslash stands before a separator in a name.
    """

    name: str
    shown: str
    tag_columns: tuple[str, ...]
    separator: str | None
    is_escaped: bool
    grouping: Grouping

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether a header with these canonical names is of this format."""
        ...

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the fields of the product that a row (and its `others`) describes.

        `label` is the canonical name of a column that is read as tags: it is no attribute then.
        """
        ...

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what a row of a product is known by to the rows of its variants."""
        ...

    def parent(self, row: Mapping[str, Any]) -> str | None:
        """Return by which of those keys a row names the product it is a variant of; None: it is none."""
        ...

    def own_id(self, row: Mapping[str, Any]) -> str:
        """Return what a variant is called that stands for itself."""
        ...


class Ungrouped:
    """What formats have in common whose every row is a product."""

    separator: str | None = None
    is_escaped = False
    grouping: Grouping = None

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return nothing: no row belongs to another."""
        return ()

    def parent(self, row: Mapping[str, Any]) -> str | None:
        """Return None."""
        return None

    def own_id(self, row: Mapping[str, Any]) -> str:
        """Return nothing: rows have their ids."""
        return ""


class Cells:
    """A row's cells as text, by canonical names; `hidden` is a column that is not there for attributes."""

    def __init__(self, row: Mapping[str, Any], hidden: str | None = None) -> None:
        self._row = row
        self._columns = columns_by_name(tuple(row))
        self._hidden = hidden

    def __call__(self, name: str) -> str:
        """Return the text of a cell, "" where there is none."""
        column = self._columns.get(name)
        return "" if column is None or name == self._hidden else cell_text(self._row[column])

    def tags(self, name: str) -> Any:
        """Return the tags of a cell: a list as it is, other values as text, None where there is nothing."""
        column = self._columns.get(name)
        value = None if column is None else self._row[column]
        return value if isinstance(value, list) else cell_text(value) or None

    def named(self, **columns: str) -> dict[str, str]:
        """Return an attribute for each cell that is not empty; underscores in a keyword are spaces."""
        found = {name.replace("_", " "): self(column) for name, column in columns.items()}
        return {name: value for name, value in found.items() if value}

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield canonical names with the columns as they are written."""
        yield from self._columns.items()


def cell_text(value: Any) -> str:
    """Return a cell's value as text: numbers in their own digits, lists with commas, what is missing as ""."""
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, float):
        return "" if value != value else format(value, ".15g")
    if isinstance(value, list | tuple):
        return ", ".join(text for item in value if (text := cell_text(item)))
    return str(value)


def joined(values: Iterable[str]) -> str:
    """Return values that are not empty, each once, with commas."""
    return ", ".join(dict.fromkeys(value for value in values if value))


def described(
    texts: Iterable[str], attributes: Mapping[str, str], alts: Iterable[str] = ()
) -> tuple[str, dict[str, str]]:
    """Return the text of HTML descriptions and all attributes: the given ones, those of tables, `alt` texts."""
    shown = [shown_text(text) for text in texts if text]
    found = dict(attributes)
    for part in shown:
        found |= {name: value for name, value in part.attributes.items() if name not in found}
    images = joined((*alts, *(alt for part in shown for alt in part.alts)))
    if images:
        found.setdefault("image", images)
    return "\n".join(dict.fromkeys(part.text for part in shown if part.text)), found


def canonical_names(header: Iterable[str]) -> frozenset[str]:
    """Return a header's canonical names."""
    return frozenset(map(canonical, header))
