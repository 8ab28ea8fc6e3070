"""Tags in one cell: a JSON list, a Python list, or names with something between them."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

SEPARATORS = {"\n": "line break", "|": "|", ";": ";", ",": ",", "#": "#"}
WHOLE = ""
"""The separator of cells that hold one tag each."""

_CHOICES = '{"choices"'
"""How Label Studio's CSV begins a cell of several choices; a single one stands bare."""
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def separator_of(option: str) -> str:
    """Return the separator that an option names: itself, or that of `newline`, `tab`, `none`."""
    return {"newline": "\n", "\\n": "\n", "tab": "\t", "\\t": "\t", "none": WHOLE}.get(option, option)


def choose_separator(cells: Iterable[str], known: frozenset[str] = frozenset()) -> str | None:
    """Return what stands between the tags of a column, None where every cell is a list or empty.

    With `known` tags (in small letters) it is what makes the most pieces known, else what stands in the most
    cells; of equals the rarer one in names.

    >>> choose_separator(["red; blue", "Shirts, T-shirts; red"])
    ';'
    >>> choose_separator(["hats, caps", "red"], frozenset({"hats, caps", "red"}))
    ''
    """
    texts = [cell for cell in cells if cell.strip() and not cell.lstrip().startswith("[")]
    if not texts:
        return None
    if any(text.startswith(_CHOICES) for text in texts):
        return WHOLE
    if known:
        shares = {}
        for separator in (WHOLE, *SEPARATORS):
            pieces = [piece.casefold() for cell in texts for piece in _split(cell, separator)]
            shares[separator] = sum(piece in known for piece in pieces) / len(pieces)
        best = max(shares, key=lambda separator: shares[separator])
        if shares[best]:
            return best
    held = Counter(separator for cell in texts for separator in SEPARATORS if separator in cell.strip())
    order = list(SEPARATORS)
    return min(held, key=lambda separator: (-held[separator], order.index(separator)), default=WHOLE)


def split_tags(cell: str, separator: str | None) -> list[Any]:
    """Return the tags of a cell, each once.

    A list is read as JSON, then as Python writes it (numpy's form without commas too); other text is split at
    `separator`, where a backslash stands before it, it is part of a name. None: the cell must be a list.

    Raises:
        ValueError: the cell looks like a list and is none.

    >>> split_tags("['a' 'b']", ",")
    ['a', 'b']
    >>> split_tags("red, blue\\\\, dark", ",")
    ['red', 'blue, dark']
    """
    text = cell.strip()
    if text.startswith("["):
        return _listed(text)
    if text.startswith(_CHOICES):
        return _listed(json.dumps(json.loads(text)["choices"]))
    if separator is None and text:
        raise ValueError(f"tags: got {text!r:.60}, expected a JSON list")
    return list(dict.fromkeys(_split(text, separator or WHOLE)))


def _listed(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # Not ast.literal_eval of the whole, which makes one string of the list ['a' 'b'].
        between = _STRING.sub("", text).strip()
        if not between.startswith("[") or not between.endswith("]") or between[1:-1].strip(", \n\r\t"):
            raise ValueError(f"tags: got {text!r:.60}, expected a list") from None
        return [str(ast.literal_eval(piece)) for piece in _STRING.findall(text)]
    return value if isinstance(value, list) else [value]


def _split(text: str, separator: str) -> list[str]:
    if not separator:
        pieces = [text]
    elif "\\" in text:
        escaped = re.split(rf"(?<!\\){re.escape(separator)}", text)
        pieces = [piece.replace("\\" + separator, separator) for piece in escaped]
    else:
        pieces = text.split(separator)
    return [piece for piece in (piece.strip() for piece in pieces) if piece]


def join_tags(tags: Sequence[str], separator: str | None, *, is_escaped: bool = False) -> str:
    """Return tags as one cell that `split_tags` reads back.

    With `is_escaped` a backslash stands before a separator in a name. Without that, and without a separator, what
    would not be read back is a JSON list.

    >>> join_tags(["red", "blue"], ","), join_tags(["soft, warm"], ",")
    ('red, blue', '["soft, warm"]')
    """
    if not tags:
        return ""
    if is_escaped and separator:
        return f"{separator} ".join(tag.replace(separator, "\\" + separator) for tag in tags)
    glue = {"\n": "\n", "#": " #"}.get(separator or "", f"{separator} ")
    if not separator or any(separator in tag or tag.startswith("[") or "\\" in tag for tag in tags):
        return json.dumps(list(tags), ensure_ascii=False)
    return ("#" if separator == "#" else "") + glue.join(tags)
