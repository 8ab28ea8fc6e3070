"""Shopify's product CSV: one row a variant or image, the rows of a product share a Handle and stand together.

The columns are those of the product template of 2024 ("Handle", "Body (HTML)", "Variant SKU") and of the one of
2025 ("URL handle", "Description", "SKU"). Tags are separated by commas, which no tag may hold, and stand in a
product's first row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Cells, Grouping, described, joined

_METAFIELD = re.compile(r"(.+?) \(product\.metafields\..+\)")


class Shopify:
    """Products of Shopify."""

    name = "shopify"
    shown = "Shopify product CSV"
    tag_columns: tuple[str, ...] = ("Tags",)
    separator: str | None = ","
    is_escaped = False
    grouping: Grouping = "adjacent"

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether a header has a handle, a title and options or a body of HTML."""
        return "title" in names and (
            ("handle" in names and bool(names & {"body (html)", "option1 name", "variant sku", "vendor"}))
            or ("url handle" in names and bool(names & {"option1 name", "product category", "vendor"}))
        )

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product of a handle: options as `Color: Blue, Green`, `alt` texts of its images."""
        cells = Cells(row, label)
        others = [Cells(other, label) for other in getattr(row, "others", ())]
        attributes = cells.named(vendor="vendor", type="type", category="product category")
        attributes |= cells.named(gender="google shopping / gender", age_group="google shopping / age group")
        for name, column in cells.names():
            if (found := _METAFIELD.fullmatch(column)) and cells(name):
                attributes.setdefault(found.group(1), cells(name).replace("; ", ", "))
        for number in (1, 2, 3):
            name = cells(f"option{number} name")
            values = joined(each(f"option{number} value") for each in (cells, *others))
            if name and values and (name, values) != ("Title", "Default Title"):
                attributes[name] = values
        alts = [each("image alt text") for each in (cells, *others)]
        text, attributes = described([cells("body (html)") or cells("description")], attributes, alts)
        return {
            "id": getattr(row, "own_id", None) or self.key(row)[0],
            "title": cells("title"),
            "description": text,
            "attributes": attributes,
            "tags": Cells(row).tags("tags"),
        }

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the handle."""
        cells = Cells(row)
        return (cells("handle") or cells("url handle"),)

    def parent(self, row: Mapping[str, Any]) -> str | None:
        """Return the handle of a row without a title: it is a further variant or image."""
        return None if Cells(row)("title") else self.key(row)[0]

    def own_id(self, row: Mapping[str, Any]) -> str:
        """Return the variant's SKU, "" for a row that holds an image only."""
        cells = Cells(row)
        values = "/".join(value for n in (1, 2, 3) if (value := cells(f"option{n} value")))
        return cells("variant sku") or cells("sku") or (values and f"{self.key(row)[0]}/{values}")
