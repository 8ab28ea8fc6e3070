"""An XML feed written back with other tags: every byte outside their element stays as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO
from xml.sax.saxutils import escape

from hangtag.errors import DataError
from hangtag.formats.dialect import read_head
from hangtag.formats.feed_xml import FeedParser
from hangtag.formats.rows import Source

_BLOCK = 1 << 16
_START = re.compile(rb"<(?:item|entry)[\s>]")


def write_feed(source: Source, column: str, cells: Iterator[tuple[int, str]], stream: IO[bytes]) -> None:
    """Write the feed with the element `g:column` of each item set, before the item's end where it has none.

    Raises:
        DataError: the feed holds a document type, or is UTF-16.
    """
    if read_head(source, 2) in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{source.name}: UTF-16; save the feed as UTF-8 first, to have it written back")
    tag = re.escape(f"g:{column}")
    element = re.compile(rf"<{tag}(?:\s[^>]*)?(?:/>|>.*?</{tag}\s*>)".encode(), re.DOTALL)
    parser = FeedParser(source.name)
    bytes_in = source.open()
    number, cell = next(cells, (None, ""))
    # `buffer` begins at byte `start` of the file; `done` items were written.
    buffer, start, done = b"", 0, 0
    try:
        while block := bytes_in.read(_BLOCK):
            buffer += block
            parser.feed(block, is_last=False)
            for end in parser.ends:
                done += 1
                item, buffer, start = buffer[: end - start], buffer[end - start :], end
                if done == number:
                    item = _with_element(item, element, column, cell)
                    number, cell = next(cells, (None, ""))
                stream.write(item)
            parser.items.clear()
            parser.ends.clear()
        parser.feed(b"", is_last=True)
        stream.write(buffer)
    finally:
        bytes_in.close()


def _with_element(before: bytes, element: re.Pattern[bytes], column: str, cell: str) -> bytes:
    """Return what stands before an item's end tag with the element in the item set."""
    begin = min(found.start() for found in _START.finditer(before))
    head, item = before[:begin], before[begin:]
    text = f"<g:{column}>{escape(cell)}</g:{column}>".encode("ascii", "xmlcharrefreplace")
    if (found := element.search(item)) is not None:
        return head + item[: found.start()] + (text if cell else b"") + item[found.end() :]
    if not cell:
        return before
    # The last line of an item is its end tag's: the new element stands on a line of its own, as others do.
    body, newline, indent = item.rpartition(b"\n")
    if not newline or indent.strip():
        return before + text
    end = b"\r\n" if body.endswith(b"\r") else b"\n"
    others = re.findall(rb"\n([ \t]*)<", body)
    return head + body + newline + (others[-1] if others else indent) + text + end + indent
