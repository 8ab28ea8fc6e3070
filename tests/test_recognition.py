from __future__ import annotations

import gzip
import shlex
from pathlib import Path

import pytest

from hangtag import Tag, TagVocabulary
from hangtag.errors import VocabularyError
from hangtag.recognition import Format, recognise

TAXONOMIES = Path(__file__).parent / "data" / "taxonomies"
FORMATS: dict[str, Format] = {
    "shop.ttl": "turtle", "google.txt": "google", "google_ids.txt": "google", "shopify.txt": "shopify",
    "shopify.json": "shopify-json", "gpc.xml": "gpc", "food.txt": "open-food-facts", "annif.tsv": "annif-tsv",
    "annif.csv": "annif-csv", "label_studio.xml": "label-studio", "debtags.txt": "debtags", "levels.csv": "levels",
    "paths.txt": "paths",
}  # fmt: skip


def test_every_file_is_recognised_under_any_name() -> None:
    assert {path.name for path in TAXONOMIES.iterdir()} == FORMATS.keys()
    for name, form in FORMATS.items():
        data = (TAXONOMIES / name).read_bytes()
        assert recognise(data, name) == form
        if form != "levels":
            assert recognise(data, "tags.txt") == form, name


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("t.txt", "red\n1 - 2\n36 - 38\n", "list"),
        ("t.txt", "36 - 38\n38 - 40\n", "list"),
        ("t.txt", "[sale]\n{new}\n", "list"),
        ("t.txt", "size:xl\ncolor:red\nen:vegan\n", "list"),
        ("t.txt", "<3 love\n<b>bold\n", "list"),
        ("t.txt", "<b>bold\n", "xml"),
        ("t.txt", "<3\n", "list"),
        ("t.txt", "#sale\n#new\n", "list"),
        ("t.txt", "tag, facet and more\nred\n", "list"),
        ("t.txt", "- red\n- blue\n", "yaml"),
        ("t.txt", "- 50 %\nred\n", "list"),
        ("t.YML", "red: 1\n", "yaml"),
        ("t.txt", "tags:\n  - red\n", "yaml"),
        ("t.txt", '{"tag": "red"}\n{"tag": "blue"}\n', "jsonl"),
        ("t.txt", '["red",\n"blue"]', "json"),
        ("t.txt", "tag,facet\nred,colour\n", "csv"),
        ("t.txt", "tag;facet\nred;colour\n", "csv"),
        ("t.json", '{"@context": {}, "@graph": []}', "json-ld"),
        ("t.rdf", '<?xml version="1.0"?>\n<!-- x -->\n<rdf:RDF xmlns:rdf="r">\n', "rdf-xml"),
        ("t.owl", '<?xml version="1.0"?>\n<!DOCTYPE rdf:RDF [\n<!ENTITY x "y">\n]>\n<rdf:RDF>', "rdf-xml"),
        ("t.nt", '<http://a.example/1> <http://a.example/p> "x"@en .\n', "n-triples"),
        ("t.txt", "PREFIX skos: <http://s.example#>\nskos:a a skos:Concept .\n", "turtle"),
        ("t.txt", "<http://a.example/1> a <http://a.example/C> ;\n", "turtle"),
        ("t.html", "<!DOCTYPE html>\n<html><body>red</body></html>", "xml"),
        ("t.txt", "", "list"),
    ],
)
def test_lists_are_told_from_formats(name: str, text: str, form: Format) -> None:
    assert recognise(text.encode(), name) == form


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"paths.txt"}))
def test_no_format_is_taken_for_a_list(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"my {name}"
    path.write_bytes((TAXONOMIES / name).read_bytes())
    with pytest.raises(VocabularyError) as caught:
        TagVocabulary.from_path(path)
    assert f"hangtag vocabulary import {shlex.quote(str(path))} --out tags.json" in str(caught.value)


def test_an_unknown_form_of_xml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tags.txt"
    path.write_text("<html>\n<body>\nred\n", encoding="utf-8")
    with pytest.raises(VocabularyError, match=r"tags\.txt: XML or HTML of no form that hangtag knows"):
        TagVocabulary.from_path(path)


RED_AND_BLUE = (Tag("red", "colour", aliases=("crimson", "a|b")), Tag("blue"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("T.CSV", "tag,facet,aliases\nred,colour,crimson|a\\|b\nblue,,\n"),
        ("t.csv", "Tag ;Facet;Aliases\r\nred;colour;crimson|a\\|b\r\nblue;;\r\n"),
        ("t.tsv", "tag\tfacet\taliases\nred\tcolour\tcrimson|a\\|b\nblue\n"),
        ("t.txt", "tag,facet,aliases\nred,colour,crimson|a\\|b\nblue,,\n"),
        ("T.JSON", '[{"tag": "red", "facet": "colour", "aliases": ["crimson", "a|b"]}, "blue"]'),
        ("t.jsonl", '{"tag": "red", "facet": "colour", "aliases": ["crimson", "a|b"]}\n\n"blue"\n'),
        ("t.NDJSON", '{"tag": "red", "facet": "colour", "aliases": ["crimson", "a|b"]}\n{"tag": "blue"}\n'),
    ],
)
def test_our_own_forms_are_read_under_any_name_and_gzipped(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert TagVocabulary.from_path(tmp_path / name).tags == RED_AND_BLUE
    (tmp_path / f"{name}.GZ").write_bytes(gzip.compress(text.encode()))
    assert TagVocabulary.from_path(tmp_path / f"{name}.GZ").tags == RED_AND_BLUE


def test_a_gzipped_or_utf16_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "tags.txt.gz").write_bytes(gzip.compress(b"red\nblue\n"))
    assert TagVocabulary.from_path(tmp_path / "tags.txt.gz").names == ("red", "blue")
    (tmp_path / "tags.txt").write_bytes("red\nroße\n".encode("utf-16"))
    assert TagVocabulary.from_path(tmp_path / "tags.txt").names == ("red", "roße")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt.gz", gzip.compress(b"red")[:-6], "gzip that cannot be read"),
        ("t.jsonl", b'{"tag": "red"}\n{"tag": \n', ":2: not JSON"),
        ("t.csv", b"Level 1,Level 2\nA,B\n", "vocabulary import"),
        ("t.csv", b"name\nred\n", "--format levels --out tags.json"),
        ("t.csv", b'tag\n"' + b"x" * 200_000 + b'"\n', ":2: not CSV (field larger than field limit"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VocabularyError) as caught:
        TagVocabulary.from_path(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
