"""HTML of a product's description as the text that a browser shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from hangtag.errors import MissingExtra

_MARKUP = re.compile(r"</?(?:p|br|div|span|ul|ol|li|b|strong|em|i|u|h[1-6]|table|tr|td|a|img|font)\b[^<>]*>", re.I)
_INLINE = frozenset({
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd",
    "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var",
    "wbr",
})  # fmt: skip
_HIDDEN = frozenset({"style", "script", "template", "noscript", "head", "title", "iframe", "object", "svg"})
_SPACE = re.compile(r"\s+")
_LONGEST_NAME = 60
"""Characters of a table's first cell that is taken for a name."""


@dataclass(slots=True)
class ShownText:
    """What a browser shows: lines of text, `name: value` of tables with two columns, `alt` texts of images."""

    text: str
    attributes: dict[str, str] = field(default_factory=dict)
    alts: tuple[str, ...] = ()


def looks_like_html(text: str) -> bool:
    """Return whether tags of HTML stand in a text."""
    return "<" in text and _MARKUP.search(text) is not None


def is_available() -> bool:
    """Return whether HTML can be read here: the extra `files` is installed."""
    try:
        import selectolax.lexbor  # noqa: F401
    except ImportError:
        return False
    return True


def shown_text(html: str) -> ShownText:
    """Return what a browser shows of `html`; plain text comes back as it is. About 8 MB/s.

    Raises:
        MissingExtra: the text holds markup and selectolax is not installed.
    """
    if "<" not in html and "&" not in html:
        return ShownText(html)
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra("selectolax", "files") from None
    body = LexborHTMLParser(html).body
    if body is None:
        return ShownText("")
    attributes: dict[str, str] = {}
    for table in body.css("table"):
        found = _pairs(table)
        if found is not None:
            attributes |= found
            table.decompose()
    alts = (_SPACE.sub(" ", image.attributes.get("alt") or "").strip() for image in body.css("img"))
    return ShownText(_lines(body), attributes, tuple(dict.fromkeys(alt for alt in alts if alt)))


def _lines(body: Any) -> str:
    """Return the text with a line for each block: selectolax's own text glues list items together."""
    lines: list[str] = []
    current, block = "", None
    for node in body.traverse(include_text=True):
        if node.tag in ("br", "hr"):
            block = None
        elif node.tag == "-text" and (text := _SPACE.sub(" ", node.text_content or "")):
            parent = node.parent
            while parent is not None and parent.tag in _INLINE:
                parent = parent.parent
            if parent is not None and parent.tag in _HIDDEN:
                continue
            place = None if parent is None else parent.mem_id
            if place != block and current.strip():
                lines.append(current.strip())
                current = ""
            block = place
            current += text
    lines.append(current.strip())
    return "\n".join(line for line in lines if line)


def _pairs(table: Any) -> dict[str, str] | None:
    """Return the rows of a table as names and values, None where they are none."""
    found = {}
    for row in table.css("tr"):
        cells = [_lines(cell).replace("\n", ", ") for cell in row.css("td, th")]
        if not any(cells):
            continue
        if len(cells) != 2 or not cells[0] or len(cells[0]) > _LONGEST_NAME:
            return None
        found[cells[0].rstrip(" :")] = cells[1]
    return found
