from __future__ import annotations

from pathlib import Path

import pytest
import rdflib

from hangtag import Tag, TagVocabulary
from hangtag.recognition import Format
from hangtag.taxonomies.importing import import_taxonomy

SHOP = Path(__file__).parent.parent / "data" / "taxonomies" / "shop.ttl"
AT = "http://shop.example/tags/"


def by_id(vocabulary: TagVocabulary) -> dict[str, Tag]:
    return {(tag.id or "").removeprefix(AT): tag for tag in vocabulary}


def test_labels_parents_aliases_and_notes() -> None:
    tags = by_id(import_taxonomy(SHOP).vocabulary)
    assert tags["boots"] == Tag(
        "Shoes > Boots", parent="Shoes", aliases=("Boots", "ankle boots", "bootes"), id=f"{AT}boots",
        labels={"de": "Stiefel", "en": "Boots"},
    )  # fmt: skip
    assert tags["shoes"].tag == "Shoes"
    assert tags["shoes"].description == "[100] Worn on the feet"
    assert tags["work"].description == "For professional use"
    assert tags["workshoes"].tag == "Workwear > Boots"
    assert tags["wellies"].parent == "Shoes > Boots"
    assert tags["sandalen"].tag == "Sandalen"
    assert (tags["chicken"].parent, tags["egg"].parent) == (None, "Chicken")
    assert {"galoshes", "nameless", "scheme"} & tags.keys() == set()


def test_what_was_changed_is_said() -> None:
    assert import_taxonomy(SHOP).lines == (
        f"{SHOP}: read as RDF in Turtle; --format names another",
        "names that are not in 'en': de 1, en-GB 1, no language 1",
        f"left out: deprecated concepts: 1 (first: {AT}galoshes)",
        f"left out: entries without a name: 1 (first: {AT}nameless)",
        "tags with more than one parent: 1; the first is kept (by address), the others (1) are left out",
        "cycles of parents, broken at their first tag: 1 (first: Chicken -> Egg -> Chicken)",
        "names that occur twice, told apart by their paths: 2 (such as 'Shoes > Boots')",
    )


@pytest.mark.parametrize(
    ("language", "shoes", "wellies", "sandals"),
    [
        ("en", "Shoes", "Wellies", "Sandalen"),
        ("EN-gb", "Shoes", "Wellies", "Sandalen"),
        ("en-US", "Shoes", "Wellies", "Sandalen"),
        ("de-AT", "Schuhe", "Wellies", "Sandalen"),
        ("fr", "Schuhe", "Wellies", "Sandales"),
    ],
)
def test_languages_fall_back_in_the_stated_order(language: str, shoes: str, wellies: str, sandals: str) -> None:
    tags = by_id(import_taxonomy(SHOP, language=language).vocabulary)
    assert [tags[key].tag for key in ("shoes", "wellies", "sandalen")] == [shoes, wellies, sandals]


@pytest.mark.parametrize(
    ("suffix", "writer", "form"),
    [("rdf", "xml", "rdf-xml"), ("nt", "nt", "n-triples"), ("jsonld", "json-ld", "json-ld")],
)
def test_every_serialization_gives_the_same(suffix: str, writer: str, form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"shop.{suffix}"
    rdflib.Graph().parse(SHOP).serialize(path, format=writer, encoding="utf-8")
    imported = import_taxonomy(path)
    assert imported.format == form
    assert imported.vocabulary.tags == import_taxonomy(SHOP).vocabulary.tags


def test_several_schemes_are_facets(tmp_path: Path) -> None:
    text = """@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
<urn:x:colour> a skos:ConceptScheme ; skos:prefLabel "Colour"@en .
<urn:x:metal> a skos:ConceptScheme .
<urn:x:1> skos:prefLabel "Gold"@en ; skos:inScheme <urn:x:colour> .
<urn:x:2> skos:prefLabel "Gold"@en ; skos:inScheme <urn:x:metal> .
<urn:x:3> skos:prefLabel "Tin"@en ; skos:inScheme <urn:x:metal> .
<urn:x:4> skos:prefLabel "Gold"@en ; skos:inScheme <urn:x:metal> ; skos:broader <urn:x:4> .
"""
    (tmp_path / "t.ttl").write_text(text, encoding="utf-8")
    imported = import_taxonomy(tmp_path / "t.ttl")
    assert [(tag.tag, tag.facet) for tag in imported.vocabulary] == [
        ("Colour > Gold", "Colour"),
        ("urn:x:metal > Gold", "urn:x:metal"),
        ("Tin", "urn:x:metal"),
        ("Gold (urn:x:4)", "urn:x:metal"),
    ]
    assert imported.lines[-2].startswith(
        "names that occur twice on one path, told apart by an id or a number: 1 (first:"
    )
