"""Files with columns of a product's own fields, or columns that the user maps: CSV, TSV, JSON, Parquet, Excel."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from hangtag.formats.fields import Ungrouped, described
from hangtag.formats.html_text import is_available, looks_like_html
from hangtag.formats.rows import FIELDS, columns_by_name


class Plain(Ungrouped):
    """Columns `id`, `title`, `description`, `attributes` (JSON) and `tags`, written in any case."""

    name = "plain"
    shown = "plain"
    tag_columns: tuple[str, ...] = ("tags",)

    def matches(self, names: frozenset[str]) -> bool:
        """Return True: every file with columns will do."""
        return True

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the row, under the names of fields where its columns are written otherwise."""
        columns = _other_columns(tuple(row))
        if columns:
            row = dict(row) | {name: row[column] for name, column in columns.items()}
        text = row.get("description")
        if isinstance(text, str) and looks_like_html(text) and is_available():
            attributes = row.get("attributes")
            shown, found = described([text], attributes if isinstance(attributes, dict) else {})
            row = dict(row) | {"description": shown}
            if not isinstance(attributes, str) or not attributes.strip():
                row["attributes"] = found
        return row


@lru_cache(maxsize=256)
def _other_columns(header: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each field that is not written as the field."""
    found = columns_by_name(header)
    return {name: found[name] for name in FIELDS if name not in header and name in found}
