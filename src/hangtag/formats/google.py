"""Feeds for Google Merchant Center and Meta's catalogues: TSV, CSV, or XML (`hangtag.formats.feed_xml`).

The columns are those of Google's product data specification of 2025 and of Meta's feed fields. Neither has tags:
they are read from `internal_label` (Meta), and written to it where a feed has it, else to `custom_label_0`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Cells, Ungrouped, described, joined

_ATTRIBUTES = (
    "brand", "color", "size", "material", "pattern", "gender", "age group", "product type",
    "google product category", "fb product category", "style", "size type", "size system", "product highlight",
)  # fmt: skip


class Google(Ungrouped):
    """Products of a feed; each variant is an item of its own there, as `item_group_id` tells."""

    name = "google"
    shown = "Google Merchant or Meta feed"
    tag_columns: tuple[str, ...] = ("internal_label", "custom_label_0")
    separator: str | None = ","

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether a header has what every feed must have."""
        return {"id", "title", "link"} <= names and bool(
            names & {"image link", "availability", "google product category"}
        )

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product of an item; `product_detail` gives attributes of its own."""
        cells = Cells(row, label)
        attributes = {name: value for name in _ATTRIBUTES if (value := cells(name))}
        for detail in re.split(r",(?=[^,:]*:[^,:]*:)", cells("product detail")):
            section, _, pair = detail.partition(":")
            name, _, value = (pair or section).partition(":")
            if name.strip() and value.strip():
                attributes[name.strip()] = value.strip()
        text, attributes = described([cells("rich text description") or cells("description")], attributes)
        return {
            "id": cells("id"),
            "title": joined([cells("title")]),
            "description": text,
            "attributes": attributes,
            "tags": Cells(row).tags("internal label"),
        }
