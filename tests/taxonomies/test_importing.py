from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from hangtag import FacetLimits, Product, Tag, TagVocabulary
from hangtag.baselines.lexical import LexicalTagger
from hangtag.cli import main
from hangtag.errors import MissingExtra, VocabularyError
from hangtag.taxonomies.importing import FORMATS, Imported, import_taxonomy

DATA = Path(__file__).parent.parent / "data" / "taxonomies"


def said(imported: Imported) -> str:
    return "\n".join(imported.lines)


def told(imported: Imported) -> list[tuple[str | None, str, str | None]]:
    return [(tag.id, tag.tag, tag.parent) for tag in imported.vocabulary]


def test_google_with_ids() -> None:
    imported = import_taxonomy(DATA / "google_ids.txt")
    assert told(imported) == [
        ("166", "Apparel & Accessories", None),
        ("187", "Apparel & Accessories > Shoes", "Apparel & Accessories"),
        ("988", "Sporting Goods", None),
        ("989", "Sporting Goods > Shoes", "Sporting Goods"),
        ("990", "Cleats", "Sporting Goods > Shoes"),
    ]
    assert imported.vocabulary.path("Cleats") == ("Sporting Goods", "Shoes", "Cleats")
    assert imported.vocabulary["Sporting Goods > Shoes"].aliases == ("Shoes",)


def test_google_without_ids_adds_parents_that_no_line_names() -> None:
    imported = import_taxonomy(DATA / "google.txt")
    assert told(imported)[2:] == [
        (None, "Shoes > Boots", "Shoes"),
        (None, "Sporting Goods", None),
        (None, "Winter Sports", "Sporting Goods"),
        (None, "Winter Sports > Boots", "Winter Sports"),
    ]
    assert "parents that stand in paths only, added: 1 (first: 'Winter Sports')" in said(imported)


def test_shopify_lists_and_json() -> None:
    tags = told(import_taxonomy(DATA / "shopify.txt"))
    assert tags[-1] == ("gid://shopify/TaxonomyCategory/aa-8-3", "Boots", "Shoes")
    vocabulary = import_taxonomy(DATA / "shopify.json").vocabulary
    assert vocabulary.facet_names == ("", "Color", "Material")
    assert vocabulary["Shoes"].parent == "Apparel & Accessories"
    assert vocabulary["Color > Gold"].id == "gid://shopify/TaxonomyValue/1"
    assert vocabulary["Material > Gold"] == Tag(
        "Material > Gold", "Material", aliases=("Gold",), id="gid://shopify/TaxonomyValue/30"
    )


def test_gpc_has_bricks_and_attributes_once() -> None:
    imported = import_taxonomy(DATA / "gpc.xml")
    assert imported.vocabulary.path("Lemonade") == ("Food/Beverage", "Beverages", "Soft Drinks", "Lemonade")
    assert imported.vocabulary["Cola"].description == "Drinks with cola"
    assert imported.vocabulary.in_facet("Caffeine") == ("Caffeinated", "Caffeine > UNCLASSIFIED")
    assert imported.vocabulary.in_facet("Sweetener") == ("Sweetener > UNCLASSIFIED",)
    assert "left out: inactive entries: 1 (first: line 20)" in said(imported)
    assert "repeat" not in said(imported)


def test_open_food_facts() -> None:
    imported = import_taxonomy(DATA / "food.txt")
    assert told(imported) == [
        ("en:yogurts", "Yogurts", None),
        ("en:banana-yogurts", "Banana yogurts", "Yogurts"),
        ("fr:yaourts-bio", "Bio", "Banana yogurts"),
        ("de:spätzle", "Spätzle", None),
        ("en:lost", "Lost", None),
    ]
    yogurts = imported.vocabulary["Yogurts"]
    assert (yogurts.aliases, yogurts.labels) == (("yoghurts",), {"en": "Yogurts", "fr": "Yaourts"})
    assert yogurts.description == "Fermented milk, of any kind"
    assert "parents that are not among the tags, left out: 1 (first: en:Nowhere)" in said(imported)
    assert "tags with more than one parent: 1; the first is kept (in the order of the file)" in said(imported)
    french = import_taxonomy(DATA / "food.txt", language="fr")
    assert french.vocabulary.names[:3] == ("Yaourts", "Yaourts à la banane", "Yaourts bio")
    assert french.vocabulary["Yaourts bio"].aliases == ("yaourts sans sucre, bio", "Bio")


def test_annif() -> None:
    table = import_taxonomy(DATA / "annif.csv")
    assert [(tag.id, tag.tag, tag.description) for tag in table.vocabulary] == [
        ("http://subjects.example/1", "computer network", ""),
        ("http://subjects.example/2", "informatique", ""),
        ("http://subjects.example/3", "Internet Protocol, v4", "[42.42]"),
    ]
    assert "names that are not in 'en': fr 1" in said(table)
    assert "left out: rows without an address or a label: 1 (first: line 5)" in said(table)
    lines = import_taxonomy(DATA / "annif.tsv")
    assert lines.vocabulary.names == ("computer network", "computer science", "Internet Protocol")
    assert lines.vocabulary["Internet Protocol"].id == "http://subjects.example/3"
    assert "left out: lines without <URI>, tab, label: 1 (first: line 4)" in said(lines)


def test_label_studio_controls_are_facets_with_limits() -> None:
    imported = import_taxonomy(DATA / "label_studio.xml")
    vocabulary = imported.vocabulary
    assert vocabulary.in_facet("kind") == ("Shoes", "Boots", "Sandals", "Bags")
    assert (vocabulary["Boots"].id, vocabulary["Boots"].description) == ("b1", "above the ankle")
    assert vocabulary.in_facet("season") == ("Summer", "season > Tan")
    assert vocabulary.facets["colour"] == FacetLimits(min=1, max=1)
    assert vocabulary.facets["season"] == vocabulary.facets["kind"] == FacetLimits()
    assert vocabulary.facets["fit"] == FacetLimits(max=1)
    assert "left out: controls that take their choices from elsewhere: 1 (first: 'free')" in said(imported)


def test_debtags() -> None:
    vocabulary = import_taxonomy(DATA / "debtags.txt").vocabulary
    described = "Executable computer program. It is run by a user."
    assert vocabulary["Program"] == Tag("Program", "role", description=described, id="role::program")
    assert vocabulary.in_facet("devel") == ("Python", "devel > Plugin")


LEVELS = [("1", "Home", None), ("2", "Kitchen", "Home"), ("3", "Pans", "Kitchen"), (None, "Bath", "Home")]


def test_levels_of_a_table() -> None:
    imported = import_taxonomy(DATA / "levels.csv")
    assert told(imported) == [*LEVELS, ("4", "Mats", "Bath")]
    assert "levels are the columns Level 1, Level 2, Level 3; not used: Note" in said(imported)
    assert "left out: paths with an empty name: 1 (first: row 6)" in said(imported)
    assert "left out: rows without a name: 1 (first: row 7)" in said(imported)


def test_levels_of_a_workbook_keep_whole_numbers(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [[1, "Home", None], [2, "Home", "Kitchen"], [3, None, "Bath"]]:
        book.active.append(row)
    book.save(tmp_path / "levels.xlsx")
    assert told(import_taxonomy(tmp_path / "levels.xlsx")) == [
        ("1", "Home", None),
        ("2", "Kitchen", "Home"),
        ("3", "Bath", "Home"),
    ]
    (tmp_path / "broken.xlsx").write_bytes((tmp_path / "levels.xlsx").read_bytes()[:500])
    with pytest.raises(VocabularyError, match=r"broken\.xlsx: not a workbook"):
        import_taxonomy(tmp_path / "broken.xlsx")


def test_a_row_without_a_level_above_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Level 1,Level 2,Level 3\nHome,,\n,,Pans\n,Bath,\n", encoding="utf-8")
    imported = import_taxonomy(tmp_path / "t.csv")
    assert told(imported) == [(None, "Home", None), (None, "Bath", "Home")]
    assert "left out: rows below a level that no row names: 1 (first: row 3)" in said(imported)


def test_any_table_is_levels_when_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Top,Below\nHome,Bath\n", encoding="utf-8")
    assert import_taxonomy(tmp_path / "t.csv", form="levels").vocabulary.path("Bath") == ("Home", "Bath")


def test_plain_paths() -> None:
    imported = import_taxonomy(DATA / "paths.txt")
    assert [tag.tag for tag in imported.vocabulary] == [
        "Women",
        "Women > Shoes",
        "Women > Shoes > Boots",
        "Sandals",
        "Men",
        "Men > Shoes",
        "Men > Shoes > Boots",
    ]
    assert "left out: paths with an empty name: 1 (first: line 5)" in said(imported)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "tag,facet,parent\nGold,colour,\nGold,material,\nAu,material,Gold\nblue,colour,\n,colour,\n"),
        ("t.yml", "- {tag: Gold, facet: colour}\n- {tag: Gold, facet: material}\n"
         "- {tag: Au, facet: material, parent: Gold}\n- {tag: blue, facet: colour}\n- {facet: x}\n"),
    ],
)  # fmt: skip
def test_one_name_in_two_facets_can_be_imported(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    imported = import_taxonomy(tmp_path / name)
    assert imported.vocabulary.names == ("colour > Gold", "material > Gold", "Au", "blue")
    assert imported.vocabulary["Au"].parent == "material > Gold"
    assert "left out: entries" in said(imported)


def test_yaml_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("- red\n- blue\n", encoding="utf-8")
    assert import_taxonomy(tmp_path / "t.txt").vocabulary.names == ("red", "blue")


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("Möbel > Stühle\nMöbel > Tische – groß\n".encode("cp1252"))
    imported = import_taxonomy(tmp_path / "t.txt")
    assert imported.vocabulary.names == ("Möbel", "Stühle", "Tische – groß")
    assert "not UTF-8 (byte 1): read as Windows-1252" in said(imported)


def test_a_text_that_names_the_plain_name_is_found() -> None:
    tagger = LexicalTagger(import_taxonomy(DATA / "google_ids.txt").vocabulary)
    [tagging] = tagger.tag([Product(id="1", title="Cleats for grass")])
    assert [(tag.id, tag.tag) for tag in tagging.tags] == [("990", "Cleats")]


BOMB = '<!DOCTYPE schema [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>\n<schema><segment code="1" text="&b;"/></schema>'
YAML_BOMB = "- &a0 [x]\n" + "".join(f"- &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
OUTSIDE = (
    '<!DOCTYPE View SYSTEM "file:///etc/passwd">\n<View><Choices name="a"><Choice value="b"/></Choices></View>'
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.xml", BOMB, "XML with a document type (<!DOCTYPE schema>)"),
        ("t.xml", OUTSIDE, "XML with a document type (<!DOCTYPE View>)"),
        (
            "t.rdf",
            '<!DOCTYPE rdf:RDF [<!ENTITY a "b">]>\n<rdf:RDF/>',
            "XML with a document type (<!DOCTYPE rdf:RDF>)",
        ),
        ("t.xml", '<schema>\n<segment code="1">', "not XML ("),
        ("t.xml", "<html><p/></html>", "name its format with --format"),
        ("t.ttl", "@prefix a: <http://a.example/> .\na:b a:c", "not turtle ("),
        ("t.ttl", "@prefix a: <http://a.example/> .\na:b a:c a:d .", "no skos:Concept"),
        ("t.json", '{"@context": "https://c.example/x", "@id": "a"}', "its @context is at https://c.example/x"),
        ("t.json", '{"@context": [{"@import": "c.jsonld"}]}', "its @context is at c.jsonld"),
        (
            "t.json",
            '{"verticals": [{"categories": ["gid://shopify/TaxonomyCategory/a"]}]}',
            "no tag in it; left out",
        ),
        ("t.json", '{"tags": {}}', "expected a list of tags"),
        ("t.yml", "a: [", "not YAML ("),
        ("t.json", '{"tags": ["a"], "facets": ["b"]}', "`facets`: got ['b'], expected"),
        (
            "t.json",
            '{"tags": ["a"], "facets": {"": {"max": "b"}}}',
            "facet '': got {'max': 'b'}, expected {min, max}",
        ),
        ("t.yml", YAML_BOMB, "no tag in it; left out: entries that are no tags: 40 (first: entry 1: got ["),
        ("t.xml", '<?xml version="1.0" encoding="utf-l"?><schema><segment code="1"/></schema>', "not XML ("),
        ("t.csv", "uri,label_en\r<http://a.example/1>,a\n", "expected a column `tag`"),
        ("t.csv", 'uri,label_en\n<http://a.example/1>,"' + "a" * 200_000 + '"\n', ":2: not CSV ("),
        ("t.csv", "Level 1,Level 2\n", "no tag in it; it is empty"),
        ("t.txt", "\n", "no tag in it"),
    ],
)
def test_what_cannot_be_imported_is_one_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(VocabularyError) as caught:
        import_taxonomy(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name"), [("lxml", "gpc.xml"), ("rdflib", "shop.ttl"), ("python_calamine", "t.xlsx")]
)
def test_a_missing_library_names_its_extra(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'hangtag\[files\]'"):
        import_taxonomy(DATA / name if (DATA / name).exists() else tmp_path / name)


def test_the_command_that_a_refusal_names_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in DATA.iterdir():
        packed = tmp_path / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        out = tmp_path / "tags.json"
        assert main(["vocabulary", "import", str(packed), "--out", str(out)]) == 0
        heard = capsys.readouterr()
        assert f"hangtag: {packed}: read as" in heard.err
        assert heard.out.startswith(f"{out}: {len(TagVocabulary.from_path(out))} tags, fingerprint ")
        assert json.loads(out.read_text(encoding="utf-8"))["tags"]
    assert main(["vocabulary", "import", str(DATA / "gpc.xml"), "--format", "turtle", "--out", str(out)]) == 2
    assert "xml" not in FORMATS
