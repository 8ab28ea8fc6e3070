"""Tag a shop's CSV row by row: columns of other names are mapped, and a row that is no product becomes an error.

    .venv/bin/python examples/tag_catalogue.py

Rows in = rows out, in order, in flat memory. The tagger is `lexical`: tags that the text names by their name or an
alias. How many tags of a facet a product holds is learned from a few labelled products. It prints:

    K-101 ok: shoes, waterproof, vegan, red
    K-102 ok: backpack, polyester, foldable, blue
    K-103 ok: insulated, bottle, steel, black
    K-104 ok: wool, hat, green
    K-105 ok: tent, waterproof, green
    K-106 error: title and description are both empty; a product needs one of them
    K-107 ok: mug, blue
    K-108 ok: jacket, foldable, waterproof, yellow
"""

from __future__ import annotations

from pathlib import Path

from hangtag import TagVocabulary, read_catalogue
from hangtag.catalogue.labelled import load_labelled
from hangtag.catalogue.tagging_writer import tag_rows
from hangtag.loading import load_baseline
from hangtag.tagging import stream_of

SHOP = Path(__file__).parent / "shop"
COLUMNS = {"id": "sku", "title": "name", "description": "text", "attributes.colour": "colour"}


def main() -> None:
    """Print one line a row of the catalogue."""
    labels = [product.tags or () for product in load_labelled(SHOP / "labelled.jsonl")]
    vocabulary = TagVocabulary.from_path(SHOP / "tags.csv").with_observed_limits(labels)
    tagger = load_baseline("lexical", (), (), vocabulary)
    stream, _ = stream_of(tagger)
    rows = read_catalogue(SHOP / "products.csv", COLUMNS)
    for tagging in tag_rows(stream, rows, model=tagger.name, vocabulary=vocabulary):
        print(f"{tagging.id} {tagging.status}: {tagging.reason or ', '.join(tagging.names)}")


if __name__ == "__main__":
    main()
