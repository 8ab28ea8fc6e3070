"""Which format a file of tags has, by what stands in it; its name decides only between forms that look alike."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

Format = Literal[
    "list", "csv", "json", "jsonl", "yaml", "paths", "levels", "turtle", "rdf-xml", "n-triples", "json-ld",
    "google", "shopify", "shopify-json", "gpc", "open-food-facts", "annif-tsv", "annif-csv", "label-studio",
    "debtags", "xml",
]  # fmt: skip

DESCRIPTIONS: dict[Format, str] = {
    "list": "a list of tags, one a line",
    "csv": "a table of tags",
    "json": "a vocabulary in JSON",
    "jsonl": "tags in JSON Lines",
    "yaml": "YAML",
    "paths": "a list of paths A > B > C",
    "levels": "a table with one column a level",
    "turtle": "RDF in Turtle",
    "rdf-xml": "RDF/XML",
    "n-triples": "RDF in N-Triples",
    "json-ld": "JSON-LD",
    "google": "Google's product taxonomy",
    "shopify": "Shopify's list of categories",
    "shopify-json": "Shopify's taxonomy in JSON",
    "gpc": "GS1 GPC in XML",
    "open-food-facts": "a taxonomy of Open Food Facts",
    "annif-tsv": "a vocabulary of Annif (TSV)",
    "annif-csv": "a vocabulary of Annif (CSV)",
    "label-studio": "a labelling configuration of Label Studio",
    "debtags": "a vocabulary of Debtags",
    "xml": "XML or HTML of no form that hangtag knows",
}
"""The formats, and what messages call them."""

CSV_COLUMNS = ("tag", "id", "facet", "parent", "path", "aliases", "description", "count")
"""Columns of a table of tags; `path` is for readers, it follows from `parent`. `label_fr` holds a French name."""

_HEAD = 65_536
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_URI = r"<[A-Za-z][A-Za-z0-9+.-]*:[^<>\s\"]*>"
_TRIPLE = re.compile(rf"(?:{_URI}|_:\S+)\s+{_URI}\s+(?:{_URI}|_:\S+|\").*\.\s*")
_ROOT = re.compile(r"<\s*(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")
_PROLOG = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?:[^\[>]|\[.*?\])*>)", re.DOTALL)
_FOOD_ENTRY = re.compile(r"<\s*[a-z]{2,3}\s*:[^>]*|(?:stopwords:|synonyms:)?[a-z]{2,3}\s*:\s*\S.*")
_LEVEL = re.compile(
    r"(?:sub[ _-]?)*(?:level|lvl|l|cat|category|categorie|kategorie|ebene|niveau|nivel|livello|department|segment|"
    r"family|class|brick|group)[ _-]*\d*(?:[ _-](?:name|text|title|description))?",
    re.IGNORECASE,
)


def recognise(data: bytes, name: str) -> Format:
    """Return the format of a file's bytes (not compressed).

    What looks like nothing else is a list. `name` is the file's; its case does not count.
    """
    if data.startswith((_ZIP, _OLE)):
        return "levels"
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    suffix = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    text = decode(data[:_HEAD], errors="replace").lstrip("\n\r")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    content = [line for line in lines if line.strip() and not line.startswith("#")]
    return (
        _by_mark(text, lines, content)
        or _markup(text, content)
        or _json(data, text, suffix)
        or _stanzas(lines, content)
        or _table(content[0] if content else "", suffix)
        or _yaml(lines, content, suffix)
        or ("paths" if any(" > " in line for line in content) else "list")
    )


def decode(data: bytes, errors: str = "strict") -> str:
    """Return text in UTF-8, or in UTF-16 where a byte order mark says so. Raises UnicodeDecodeError: neither."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors)
    return data.decode("utf-8-sig", errors)


def _by_mark(text: str, lines: Sequence[str], content: Sequence[str]) -> Format | None:
    """Return formats that name themselves in their first lines."""
    if text.startswith("# Google_Product_Taxonomy_Version"):
        return "google"
    if len(content) > 1 and all(re.match(r"\d+ - [^\W\d]", line) for line in content[:-1]):
        return "google"
    if any(line.startswith("gid://shopify/TaxonomyCategory/") and " : " in line for line in lines):
        return "shopify"
    if any(re.match(r"@(prefix|base)\b|(PREFIX|BASE)\s+(\S*:\s*)?<", line) for line in content[:50]):
        return "turtle"
    return None


def _markup(text: str, content: Sequence[str]) -> Format | None:
    """Return formats that begin with "<"."""
    first = content[0] if content else ""
    if _TRIPLE.fullmatch(first):
        return "n-triples"
    if re.match(_URI, first):
        return "annif-tsv" if re.fullmatch(rf"{_URI}\t[^\t]+(\t[^\t]*)?", first) else "turtle"
    if not first.startswith("<") or _FOOD_ENTRY.fullmatch(first):
        return None
    body = text.lstrip()
    while prolog := _PROLOG.match(body):
        body = body[prolog.end() :].lstrip()
    root = _ROOT.match(body)
    if root is None:
        return "xml" if body != text.lstrip() else None
    if root[1] == "RDF":
        return "rdf-xml"
    if root[1] in ("View", "Taxonomy", "Choices"):
        return "label-studio"
    return "gpc" if re.search(r"<segment\s[^>]*\bcode=", text) else "xml"


def _json(data: bytes, text: str, suffix: str) -> Format | None:
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix != ".json" and not text.startswith(("{", "[")):
        return None
    if re.search(r'"@(context|graph|id)"\s*:', text):
        return "json-ld"
    if re.search(r'"(verticals|attributes)"\s*:\s*\[', text) and "gid://shopify/Taxonomy" in text:
        return "shopify-json"
    if suffix == ".json":
        return "json"
    if isinstance(_parsed(text.split("\n")[0]), dict):
        return "jsonl"
    return None if _parsed(decode(data, errors="replace")) is None else "json"


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None


def _stanzas(lines: Sequence[str], content: Sequence[str]) -> Format | None:
    if content and re.match(r"Facet: \S|Tag: \S+::\S", content[0]):
        return "debtags"
    has_blocks = any(not line.strip() for line in lines[:-1])
    entries = [line for line in content[:50] if _FOOD_ENTRY.fullmatch(line.rstrip())]
    return "open-food-facts" if has_blocks and 2 * len(entries) > len(content[:50]) else None


def header_cells(line: str) -> tuple[list[str], str]:
    """Return the cells of a table's first line and its delimiter: comma, semicolon or tab.

    Cells are in small letters, but for the language after `label_`.
    """
    delimiter = max(",;\t", key=line.count)
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [" ".join(line.lower().split())], delimiter
    return [_column(cell.strip()) for cell in cells], delimiter


def _column(cell: str) -> str:
    name = cell.lower()
    return name[:6] + cell[6:] if name.startswith("label_") else name


def is_level(header: str) -> bool:
    """Return whether a column's name is that of a level, such as `Level 2` or `Subcategory`."""
    return _LEVEL.fullmatch(header.strip()) is not None


def _table(first: str, suffix: str) -> Format | None:
    cells, _ = header_cells(first)
    is_own = len(cells) > 1 and all(cell in CSV_COLUMNS or cell.startswith("label_") for cell in cells)
    if is_own and "tag" in cells:
        return "csv"
    if "uri" in cells and any(cell.startswith("label_") for cell in cells):
        return "annif-csv"
    if suffix not in (".csv", ".tsv"):
        return None
    return "levels" if "tag" not in cells and sum(map(is_level, cells)) > 1 else "csv"


def _yaml(lines: Sequence[str], content: Sequence[str], suffix: str) -> Format | None:
    if suffix in (".yml", ".yaml") or lines[0].rstrip() == "---":
        return "yaml"
    if content and content[0].rstrip() == "tags:":
        return "yaml"
    is_list = all(line.startswith(("- ", "  ")) for line in content) and bool(content) and content[0][0] == "-"
    return "yaml" if is_list else None
