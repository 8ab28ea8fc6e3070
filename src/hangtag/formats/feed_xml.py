"""Items of an XML feed: RSS 2.0 or Atom with elements of Google's namespace (`g:`).

The file streams through expat of the standard library. A document type is refused before anything is read of
it, so there are no entities but XML's own five: neither bombs nor files from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from xml.parsers import expat

from hangtag.errors import DataError
from hangtag.formats.rows import DAMAGE, Source

ITEMS = ("item", "entry")
_BLOCK = 1 << 16
_TEXT = {"summary": "description", "content": "description"}
"""Atom's names for what RSS calls a description."""


class FeedParser:
    """Feeds bytes to expat and gathers items as they end.

    `ends` holds for each item the byte at which its end tag begins. Raises DataError: a document type.
    """

    def __init__(self, name: str) -> None:
        self.items: list[dict[str, Any]] = []
        self.ends: list[int] = []
        self._name = name
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._item: dict[str, Any] | None = None
        self._googles: set[str] = set()
        self._depth = 0
        self._text: list[str] = []
        self._inner: dict[str, str] = {}

    def feed(self, block: bytes, *, is_last: bool) -> None:
        """Parse more bytes. Raises DataError, or expat.ExpatError where the file is no XML."""
        self._parser.Parse(block, is_last)

    def _refuse(self, *_: Any) -> None:
        raise DataError(
            f"{self._name}: a document type (<!DOCTYPE …>), which no feed needs and which can hold entities that "
            "expand without end or read other files; remove it"
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._item is None:
            if tag in ITEMS:
                self._item, self._googles, self._depth = {}, set(), 0
            return
        self._depth += 1
        self._text = [attributes["href"]] if attributes and tag == "link" and "href" in attributes else []

    def _characters(self, text: str) -> None:
        if self._item is not None:
            self._text.append(text)

    def _end(self, tag: str) -> None:
        item = self._item
        if item is None:
            return
        if not self._depth:
            self.items.append(item)
            self.ends.append(self._parser.CurrentByteIndex)
            self._item = None
            return
        self._depth -= 1
        text, self._text = "".join(self._text).strip(), []
        if self._depth:
            if self._depth == 1:
                self._inner[tag.rpartition(":")[2]] = text
            return
        if self._inner:
            text = _detail(self._inner)
            self._inner = {}
        self._keep(item, tag, text)

    def _keep(self, item: dict[str, Any], tag: str, text: str) -> None:
        """Enter an element; Google's own takes the place of one without `g:`, repeated ones stand after commas."""
        prefix, name = _name(tag)
        if name not in item or (prefix and name not in self._googles):
            item[name] = text
        elif (prefix or name not in self._googles) and text:
            item[name] += "," + text if name == "product_detail" else ", " + text
        if prefix:
            self._googles.add(name)


@lru_cache(maxsize=1024)
def _name(tag: str) -> tuple[str, str]:
    prefix, _, name = tag.rpartition(":")
    return prefix, _TEXT.get(name, name)


def _detail(inner: dict[str, str]) -> str:
    """Return the parts of `product_detail` as a table has them, "" for other elements with parts."""
    names = ("section_name", "attribute_name", "attribute_value")
    return ":".join(inner.get(name, "") for name in names) if names[1] in inner else ""


def feed_items(source: Source) -> Iterator[dict[str, Any] | str]:
    """Yield the items of a feed; where the XML breaks off, the last row says so.

    Raises:
        DataError: the file holds a document type.
    """
    parser = FeedParser(source.name)
    stream = source.open()
    reason = None
    try:
        while True:
            block = stream.read(_BLOCK)
            parser.feed(block, is_last=not block)
            yield from _taken(parser)
            if not block:
                return
    except expat.ExpatError as error:
        reason = f"not XML from line {error.lineno} on ({expat.ErrorString(error.code)}); what follows is not read"
    except DAMAGE as error:
        reason = f"the compressed file is damaged from here on ({error})"
    finally:
        stream.close()
    yield from _taken(parser)
    yield reason


def _taken(parser: FeedParser) -> Iterator[dict[str, Any]]:
    items = list(parser.items)
    parser.items.clear()
    parser.ends.clear()
    yield from items
