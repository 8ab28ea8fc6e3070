"""Open Food Facts' exports, as of 2025: JSON Lines, and the TSV without quotes that is called .csv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Cells, Ungrouped, described


class OpenFoodFacts(Ungrouped):
    """Products of Open Food Facts; `--label-column categories_tags` makes categories its labels."""

    name = "openfoodfacts"
    shown = "Open Food Facts export"
    tag_columns: tuple[str, ...] = ("tags",)

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether there is a code, a name, and columns that only this project has."""
        return {"code", "product name"} <= names and bool(
            names & {"creator", "categories tags", "ingredients text", "nutriscore grade", "nova group"}
        )

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product; the text is its generic name and its ingredients."""
        cells = Cells(row, label)
        hidden = label.removesuffix(" tags") if label else None
        attributes = cells.named(
            brands="brands", quantity="quantity", packaging="packaging", categories="categories", labels="labels",
            origins="origins",
        )  # fmt: skip
        attributes.pop(hidden or "", None)
        text, attributes = described([cells("generic name"), cells("ingredients text")], attributes)
        return {
            "id": cells("code"),
            "title": cells("product name"),
            "description": text,
            "attributes": attributes,
            "tags": Cells(row).tags("tags"),
        }
