"""Tag three products from Python: a language model, prompted with the shop's labelled products nearest to each.

    .venv/bin/python examples/tag_products.py

The tags are always a correct set of the vocabulary. Which ones is the model's judgement, and that of the
small base model is weak. After some seconds of loading it prints the tags with their confidences, whose
digits differ a little from machine to machine:

    K-201 (ok): shoes 0.87, blue 0.67, waterproof 0.56
    K-202 (ok): shoes 0.48, red 0.41, wool 0.76
    K-203 (ok): bottle 0.66, black 0.95, steel 0.79
"""

from __future__ import annotations

from pathlib import Path

from hangtag import Product, TagVocabulary, load_tagger
from hangtag.catalogue.labelled import load_labelled

SHOP = Path(__file__).parent / "shop"
PRODUCTS = [
    Product(id="K-201", title="Trail shoe Fjord", description="Vegan, with a waterproof membrane."),
    Product(id="K-202", title="Merino beanie", attributes={"colour": "green"}),
    Product(
        id="K-203", title="Insulated flask 0.7 l", description="Stainless steel.", attributes={"colour": "black"}
    ),
]


def main() -> None:
    """Load a tagger and print what it says of the products."""
    labelled = load_labelled(SHOP / "labelled.jsonl")
    vocabulary = TagVocabulary.from_path(SHOP / "tags.csv").with_observed_limits(
        product.tags or () for product in labelled
    )
    tagger = load_tagger(vocabulary, "smollm2-135m", examples=labelled, engine="transformers")
    for tagging in tagger.tag(PRODUCTS):
        tags = ", ".join(f"{tag.tag} {tag.confidence:.2f}" for tag in tagging.tags)
        print(f"{tagging.id} ({tagging.status}): {tags or 'no tag'}")


if __name__ == "__main__":
    main()
