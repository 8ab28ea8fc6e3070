from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import rdflib
from rdflib.namespace import SKOS

from hangtag import FacetLimits, Tag, TagVocabulary
from hangtag.cli import main
from hangtag.taxonomies.export import exported
from hangtag.taxonomies.importing import import_taxonomy

DATA = Path(__file__).parent.parent / "data" / "taxonomies"
FILES = sorted(path.name for path in DATA.iterdir())


def in_order(vocabulary: TagVocabulary) -> list[Tag]:
    """The tags, with aliases in one order: SKOS keeps none."""
    return [replace(tag, aliases=tuple(sorted(tag.aliases))) for tag in vocabulary]


@pytest.mark.parametrize("name", FILES)
def test_skos_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    vocabulary = import_taxonomy(DATA / name).vocabulary
    text, lines = exported(vocabulary, "skos")
    (tmp_path / "t.ttl").write_text(text, encoding="utf-8")
    again = import_taxonomy(tmp_path / "t.ttl").vocabulary
    assert in_order(again) == in_order(vocabulary)
    assert again.fingerprint == vocabulary.fingerprint
    assert lines == (["limits of facets have no place in skos and are left out"] if "label_studio" in name else [])


@pytest.mark.parametrize("name", FILES)
def test_a_table_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    vocabulary = import_taxonomy(DATA / name).vocabulary
    (tmp_path / "t.csv").write_text(exported(vocabulary, "csv")[0], encoding="utf-8")
    assert TagVocabulary.from_path(tmp_path / "t.csv").tags == vocabulary.tags


def test_a_table_keeps_what_needs_quoting_and_says_what_it_loses(tmp_path: Path) -> None:
    tags = [
        Tag(
            'a "b", c\\d',
            aliases=("x|y", "z; w"),
            description="one\ntwo",
            count=3,
            id="gid://x/1",
            labels={"zh": "红"},
        ),
        Tag("Up > Down", "f|g", count=0, id="7"),
    ]
    vocabulary = TagVocabulary(tags, facets={"f|g": FacetLimits(max=1)})
    text, lines = exported(vocabulary, "csv")
    assert text.splitlines()[0] == "tag,id,facet,parent,path,aliases,description,count,label_zh"
    assert lines == ["limits of facets have no place in csv and are left out"]
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert TagVocabulary.from_path(tmp_path / "t.csv").tags == tuple(tags)
    assert exported(vocabulary, "skos")[1] == [
        "limits of facets and counts have no place in skos and are left out"
    ]


def test_skos_is_what_others_read() -> None:
    vocabulary = import_taxonomy(DATA / "shop.ttl").vocabulary
    graph = rdflib.Graph().parse(data=exported(vocabulary, "skos")[0], format="turtle")
    boots, shoes = (rdflib.URIRef(f"http://shop.example/tags/{name}") for name in ("boots", "shoes"))
    labels = {*graph.objects(boots, SKOS.prefLabel)}
    assert labels == {rdflib.Literal("Boots", lang="en"), rdflib.Literal("Stiefel", lang="de")}
    assert {*graph.objects(boots, SKOS.altLabel)} == {rdflib.Literal("ankle boots"), rdflib.Literal("bootes")}
    assert graph.value(boots, SKOS.broader) == shoes


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tags.txt").write_text("red\nblue\n", encoding="utf-8")
    out = tmp_path / "out" / "tags.csv"
    arguments = ["vocabulary", "export", str(tmp_path / "tags.txt"), "--to"]
    assert main([*arguments, "csv", "--out", str(out)]) == 0
    assert TagVocabulary.from_path(out).names == ("red", "blue")
    assert main([*arguments, "csv", "--out", str(tmp_path / "tags.txt" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err
