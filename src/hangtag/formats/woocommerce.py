"""The CSV of WooCommerce's own exporter (Products, Export), with English headers; as of WooCommerce 9.

Variations are rows of their own, anywhere in the file, whose `Parent` is the SKU or `id:N` of their product.
Values in `Categories`, `Tags` and attributes are separated by commas, a backslash stands before a comma in a name.
Line breaks in descriptions are written as a backslash and an n, and an apostrophe stands before a cell that a
spreadsheet would compute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Cells, Grouping, cell_text, described, joined
from hangtag.formats.tag_cells import split_tags

_ATTRIBUTE = re.compile(r"attribute (\d+) name")


class WooCommerce:
    """Products of WooCommerce."""

    name = "woocommerce"
    shown = "WooCommerce product CSV"
    tag_columns: tuple[str, ...] = ("Tags",)
    separator: str | None = ","
    is_escaped = True
    grouping: Grouping = "parent"

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether a header is that of the exporter."""
        return {"type", "sku", "name"} <= names and bool(names & {"parent", "regular price", "published"})

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product of a row and its variations: attributes hold the values of all of them."""
        rows = [
            {name: _unescaped(value) for name, value in each.items()}
            for each in (row, *getattr(row, "others", ()))
        ]
        cells, *others = (Cells(each, label) for each in rows)
        attributes = cells.named(brand="brands", categories="categories")
        if "categories" in attributes:
            attributes["categories"] = joined(split_tags(attributes["categories"], ","))
        values: dict[str, list[str]] = {}
        for each in (cells, *others):
            for name, _ in each.names():
                if (found := _ATTRIBUTE.fullmatch(name)) and (attribute := each(name)):
                    values.setdefault(attribute, []).extend(
                        split_tags(each(f"attribute {found.group(1)} value(s)"), ",")
                    )
        attributes |= {name: text for name, held in values.items() if (text := joined(held))}
        texts = [_with_lines(cells(name)) for name in ("short description", "description")]
        text, attributes = described(texts, attributes)
        return {
            "id": getattr(row, "own_id", None) or self.own_id(rows[0]),
            "title": cells("name"),
            "description": text,
            "attributes": attributes,
            "tags": Cells(rows[0]).tags("tags"),
        }

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return SKU and `id:N`."""
        cells = Cells(row)
        keys = (cells("sku"), f"id:{cells('id')}" if cells("id") else "")
        return tuple(key for key in keys if key)

    def parent(self, row: Mapping[str, Any]) -> str | None:
        """Return `Parent` of a variation."""
        cells = Cells(row)
        kinds = [kind.strip() for kind in cells("type").casefold().split(",")]
        return cells("parent") if "variation" in kinds else None

    def own_id(self, row: Mapping[str, Any]) -> str:
        """Return the SKU, or the id."""
        return Cells(row)("sku") or Cells(row)("id")


def _unescaped(value: Any) -> Any:
    text = cell_text(value)
    return text[1:] if len(text) > 1 and text[0] == "'" and text[1] in "=+-@" else value


def _with_lines(text: str) -> str:
    return re.sub(r"\\(\\n|n)", lambda found: "\\n" if found.group(1) == "\\n" else "\n", text)
