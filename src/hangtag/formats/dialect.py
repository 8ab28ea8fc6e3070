"""How a delimited file is written: its delimiter and its encoding, from its first mebibyte."""

from __future__ import annotations

import csv
import re
from typing import NamedTuple

from hangtag.errors import DataError
from hangtag.formats.rows import DAMAGE, Reading, Source, canonical

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_HEAD_BYTES = 1 << 20
_SAMPLE_LINES = 50
_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)
_ASCII = frozenset(map(chr, range(128)))
_WESTERN = frozenset(
    "äöüÄÖÜßàâæçéèêëïîôœùûÿÀÂÆÇÉÈÊËÏÎÔŒÙÛŸáíóúñÁÍÓÚÑåøÅØìòÌÒãõÃÕšžŠŽýÝ€£©®™°–—‘’“”„…•·½¼¾×±«»\xa0´¡§"
)
# Three accents in a row, a capital after a small letter, a pound sign before a letter.
_ODD = re.compile(r"[À-ÿ]{3}|[a-zß-ÿ][À-ÖØ-ÞŸŒŠŽ]|£[^\W\d]")


class Dialect(NamedTuple):
    """How a delimited file is written; `first_line` is that of the header, from 0.

    `is_wrapped` says that lines cannot be told in its bytes: UTF-16, or lines that end in a lone CR.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    is_quoted: bool = True
    first_line: int = 0
    is_wrapped: bool = False
    guesses: tuple[str, ...] = ()


def recognise_dialect(source: Source, reading: Reading) -> Dialect:
    """Return how a delimited file is written, from its first mebibyte and what the user says.

    Raises:
        DataError: the encoding or delimiter that the user names does not exist.
    """
    head = read_head(source, _HEAD_BYTES)
    encoding, guesses = _encoding(head, reading.encoding, source.name)
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    is_wide = encoding.replace("-", "").replace("_", "").startswith(("utf16", "utf32"))
    lines = text.splitlines()[: _SAMPLE_LINES + 1]
    first_line = 0
    stated = _SEPARATOR_LINE.match(lines[0]) if lines else None
    if stated is not None:
        first_line, lines = 1, lines[1:]
    delimiter = reading.delimiter and {"tab": "\t", "\\t": "\t"}.get(reading.delimiter, reading.delimiter)
    if delimiter is None:
        delimiter = stated.group(1) if stated else _delimiter(lines, source.kind)
    elif len(delimiter) != 1:
        raise DataError(f"--delimiter {reading.delimiter!r}: expected one character, or tab")
    if delimiter != ("\t" if source.kind == ".tsv" else ","):
        guesses.append(f"delimiter {DELIMITERS.get(delimiter, repr(delimiter))}")
    names = {canonical(name) for name in lines[0].split("\t")} if lines else set()
    is_quoted = not (delimiter == "\t" and {"code", "product name", "creator"} <= names)
    is_wrapped = is_wide or ("\r" in text and "\n" not in text)
    return Dialect(delimiter, encoding, is_quoted, first_line, is_wrapped, tuple(guesses))


def read_head(source: Source, size: int) -> bytes:
    """Return the first bytes of a file, what can be read of them where it is damaged."""
    stream = source.open()
    try:
        head = b""
        while len(head) < size and (block := stream.read(min(size, 1 << 16))):
            head += block
    except DAMAGE:
        pass
    finally:
        stream.close()
    return head


def _encoding(head: bytes, given: str | None, name: str) -> tuple[str, list[str]]:
    if given is not None:
        try:
            "".encode(given)
        except LookupError:
            raise DataError(
                f"--encoding {given!r}: no such encoding; expected for example utf-8 or cp1252"
            ) from None
        # The mark of byte order then stays a part of the text, and is written back as it was.
        return (_wide(head) if "".encode(given) == "".encode("utf-16") else given.lower()), []
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _wide(head), ["encoding UTF-16"]
    lines = [line for line in head[: head.rfind(b"\n") + 1 or len(head)].split(b"\n") if not line.isascii()]
    num_other = sum(not _is_utf8(line) for line in lines)
    if num_other <= len(lines) - num_other:
        # Where most lines are UTF-8, one that is not is a bad row and no reason to read all others wrongly.
        return "utf-8", []
    guess = "cp1252" if _is_western(b"\n".join(lines)) else None
    if guess is None:
        try:
            from charset_normalizer import from_bytes
        except ImportError:
            return "utf-8", ["not UTF-8; give --encoding, or pip install 'hangtag[files]' for a guess"]
        best = from_bytes(head).best()
        guess = "cp1252" if best is None else best.encoding
    return guess, [f"encoding {guess} (a guess; --encoding overrides it)"]


def _wide(head: bytes) -> str:
    return "utf-16-be" if head.startswith(b"\xfe\xff") else "utf-16-le"


def _is_western(text: bytes) -> bool:
    """Return whether text reads well as Windows-1252: accents stand as they do in words.

    charset-normalizer 3.5 takes a few lines of it for cp1250, cp1006 or Big5.
    """
    decoded = text.decode("cp1252", "replace")
    return set(decoded) - _ASCII <= _WESTERN and not _ODD.search(decoded)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(lines: list[str], kind: str) -> str:
    """Return the delimiter under which most lines are as wide as the header, of equals that of the widest."""
    best, chosen = (0, 0), "\t" if kind == ".tsv" else ","
    for delimiter in DELIMITERS:
        try:
            rows = list(csv.reader([f"{line}\n" for line in lines], delimiter=delimiter))
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        if width > 1:
            score = (sum(len(row) == width for row in rows) * 4 // len(rows), width)
            if score > best:
                best, chosen = score, delimiter
    return chosen
