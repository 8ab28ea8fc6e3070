"""The product CSV of Magento 2 and Adobe Commerce 2.4 (System, Data Transfer).

`additional_attributes` holds `code=value` with commas between, several values of one with `|`; a configurable
product lists its variations in `configurable_variations`. Magento has no tags of its own: they are read from a
column `tags` where a file has one, or from the column that --label-column names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Cells, Ungrouped, described, joined

_NEXT_CODE = re.compile(r",(?=[a-z][a-z0-9_]*=)")


class Magento(Ungrouped):
    """Products of Magento 2; the simple products of a configurable one are products with SKUs of their own."""

    name = "magento"
    shown = "Magento 2 product CSV"
    tag_columns: tuple[str, ...] = ("tags",)

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether a header is that of Magento's export."""
        return {"sku", "name", "attribute set code"} <= names

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product of a row, options of its variations joined."""
        cells = Cells(row, label)
        attributes = cells.named(categories="categories", set="attribute set code")
        if "categories" in attributes:
            attributes["categories"] = joined(re.split(r",(?=[^,/]+/|[^,/]+$)", attributes["categories"]))
        for pair in _NEXT_CODE.split(cells("additional attributes")):
            code, separator, value = pair.partition("=")
            if separator and value.strip() and code.strip() != label:
                attributes[code.strip().replace("_", " ")] = joined(value.strip().strip('"').split("|"))
        options: dict[str, list[str]] = {}
        for variation in cells("configurable variations").split("|"):
            for pair in variation.split(","):
                code, separator, value = pair.partition("=")
                if separator and code.strip() != "sku":
                    options.setdefault(code.strip().replace("_", " "), []).append(value.strip())
        attributes |= {code: joined(values) for code, values in options.items()}
        alts = [cells("base image label")]
        text, attributes = described([cells("short description"), cells("description")], attributes, alts)
        return {
            "id": cells("sku"),
            "title": cells("name"),
            "description": text,
            "attributes": attributes,
            "tags": Cells(row).tags("tags"),
        }
