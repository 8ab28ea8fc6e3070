"""Tags written back into the file that the products came from, or the products with their tags into a new one.

A file of the same kind keeps every other cell as it was (CSV, JSON Lines and XML byte for byte). Another kind gets
the products: `id`, `title`, `description`, `attributes`, `tags`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hangtag.catalogue.files import CatalogueFile
from hangtag.catalogue.product_writer import write_products
from hangtag.catalogue.rows import CatalogueRows
from hangtag.durable import replaced
from hangtag.errors import DataError
from hangtag.formats.delimited_writer import write_delimited
from hangtag.formats.feed_writer import write_feed
from hangtag.formats.json_writer import write_json_lines
from hangtag.formats.parquet_writer import write_parquet
from hangtag.formats.recognise import FORMATS, Recognised, recognise
from hangtag.formats.rows import Reading
from hangtag.formats.tag_cells import join_tags, split_tags
from hangtag.formats.workbook_writer import write_workbook
from hangtag.tagging import Tagging

SHOPS = ("shopify", "woocommerce", "google")
_CONTAINERS = {"csv": "delimited", "jsonl": "jsonl", "xlsx": "xlsx", "parquet": "parquet"}
TARGETS = (*SHOPS, *_CONTAINERS, "label-studio")
_WRITTEN = ("delimited", "jsonl", "xlsx", "parquet", "xml")
_LONGEST_LABEL = 100
"""Characters of a custom label in Google's specification."""


@dataclass(frozen=True, slots=True)
class Change:
    """The tags of a product in its file, before and after; `number` is that of its row there."""

    number: int
    id: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """Tags that come in."""
        return tuple(tag for tag in self.after if tag not in self.before)

    @property
    def removed(self) -> tuple[str, ...]:
        """Tags that go."""
        return tuple(tag for tag in self.before if tag not in self.after)


class WriteBack:
    """Where the tags of one file go, and what they change there.

    `to` is one of `TARGETS`. With `is_merged` tags that a product has stay, and new ones come after them.

    Raises:
        DataError: the file is not of the shop's format that `to` names, or holds rows for single variants.
    """

    def __init__(self, file: CatalogueFile, reading: Reading, to: str, *, is_merged: bool = False) -> None:
        self.file = file
        self._reading = reading
        self._to = to
        self._is_merged = is_merged
        self._found: Recognised = recognise(file, reading)
        shown = {form.name: form.shown for form in FORMATS}
        if to in SHOPS and self._found.form.name != to:
            raise DataError(
                f"{file.name}: a {self._found.form.shown} file; --to {to} writes back a {shown[to]} "
                f"(--from {to} if it is one)"
            )
        if to in SHOPS and self._found.container not in _WRITTEN:
            raise DataError(f"{file.name}: --to {to} cannot write back a {self._found.container} file")
        if self._is_own and reading.variants == "separate" and self._found.form.grouping:
            raise DataError("--variants separate: tags stand with the product in the file; take `joined`")
        self.column = self._found.tag_column(reading)

    @property
    def _is_own(self) -> bool:
        return self._to in SHOPS or _CONTAINERS.get(self._to) == self._found.container

    def changes(self, taggings: Iterable[Tagging]) -> Iterator[Change]:
        """Yield what changes in the file, by row; rows without a tagging keep what they have.

        Raises:
            DataError: the file has not as many rows as there are taggings.
        """
        rows = CatalogueRows([self.file], self._reading)
        given = iter(taggings)
        try:
            while batch := rows.read(2048):
                for number, row in batch:
                    tagging = next(given, None)
                    if tagging is None:
                        raise DataError(f"{self.file.name}: more rows than taggings; it changed since it was read")
                    if isinstance(row, str) or tagging.status != "ok":
                        continue
                    before = self._before(row)
                    known = {tag.casefold() for tag in before} if self._is_merged else set()
                    kept = before if self._is_merged else ()
                    after = (*kept, *(tag for tag in tagging.names if tag.casefold() not in known))
                    yield Change(getattr(row, "number", number), tagging.id, before, after)
        finally:
            rows.close()
        if next(given, None) is not None:
            raise DataError(f"{self.file.name}: fewer rows than taggings; it changed since it was read")

    def _before(self, row: dict[str, Any]) -> tuple[str, ...]:
        value = row.get(self.column)
        if isinstance(value, str):
            value = split_tags(value, self._separator or "") if value.strip() else ()
        return tuple(map(str, value)) if isinstance(value, list | tuple) else ()

    @property
    def _separator(self) -> str | None:
        if self.column == "internal_label":
            return None
        return self._found.separator

    def write(self, taggings: Callable[[], Iterable[Tagging]], out: Path) -> int:
        """Write the file, whole or not at all, and return how many products have other tags than before.

        `taggings` gives those of all rows, in order, as often as it is called.

        Raises:
            DataError: `out` is the file that is read, it cannot be written, or a tag cannot stand in it.
        """
        if Path(self.file.path).exists() and out.exists() and out.samefile(self.file.path):
            raise DataError(f"{out}: the file that is read; give --out another name")
        changed = 0

        def counted() -> Iterator[Change]:
            nonlocal changed
            for change in self.changes(taggings()):
                changed += set(change.before) != set(change.after)
                yield change

        try:
            with replaced(out) as temporary, temporary.open("wb") as raw, ExitStack() as closing:
                stream: Any = raw
                if out.suffix.lower() == ".gz":
                    stream = closing.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename=""))
                if self._is_own:
                    self._write_own(counted(), stream)
                else:
                    write_products(self.file, self._reading, self._to, counted(), taggings(), stream)
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error.strerror or error})") from None
        return changed

    def _write_own(self, changes: Iterator[Change], stream: IO[bytes]) -> None:
        source, found, column = self.file, self._found, self.column
        changes = (change for change in changes if change.before != change.after)
        texts = ((change.number, self._cell(change.after)) for change in changes)
        if found.container == "delimited":
            write_delimited(source, found.dialect, column, texts, stream)
        elif found.container == "xlsx":
            write_workbook(source, column, texts, stream)
        elif found.container == "xml":
            write_feed(source, column, texts, stream)
        elif found.container == "parquet":
            write_parquet(source, column, ((c.number, c.after) for c in changes), self._cell, stream)
        else:
            lists = ((change.number, join_tags(change.after, None) or "[]") for change in changes)
            write_json_lines(source, column, lists, stream)

    def _cell(self, tags: Sequence[str]) -> str:
        form = self._found.form
        if form.name == "shopify" and (unfit := [tag for tag in tags if "," in tag]):
            raise DataError(
                f"tag {unfit[0]!r} holds a comma, which separates tags in a Shopify file; give it another name"
            )
        if self.column == "internal_label":
            # As Meta documents it: a list with single quotes.
            return str(list(tags)) if tags else ""
        if form.name == "google":
            while tags and len(join_tags(tags, ",")) > _LONGEST_LABEL:
                tags = tags[:-1]
        return join_tags(tags, self._separator, is_escaped=form.is_escaped)
