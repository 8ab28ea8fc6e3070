from __future__ import annotations

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import rdflib
from rdflib.namespace import SKOS

from hangtag import FacetLimits, Tag, TagVocabulary
from hangtag.cli import main
from hangtag.errors import HangtagError
from hangtag.taxonomies.export import exported
from hangtag.taxonomies.importing import Imported, import_taxonomy

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
    assert exported(vocabulary, "skos")[1] == ["limits of facets, counts have no place in skos and are left out"]


def test_a_name_under_no_language_is_left_out_and_said(tmp_path: Path) -> None:
    text, lines = exported(TagVocabulary([Tag("red", labels={"no tag": "x", "de": "rot"})]), "skos")
    assert lines == ["names under what is no language tag have no place in skos and are left out"]
    (tmp_path / "t.ttl").write_text(text, encoding="utf-8")
    assert import_taxonomy(tmp_path / "t.ttl").vocabulary.tags == (Tag("red", labels={"de": "rot"}),)


def test_names_that_took_an_id_come_back(tmp_path: Path) -> None:
    document = [{"tag": "Gold", "id": "1"}, {"tag": "gold", "id": "2"}, {"tag": "GOLD"}, {"tag": "Tin", "id": "4"}]
    (tmp_path / "t.json").write_text(json.dumps(document), encoding="utf-8")
    vocabulary = import_taxonomy(tmp_path / "t.json").vocabulary
    assert vocabulary.names == ("Gold", "gold (2)", "GOLD (2)", "Tin") or vocabulary.names == (
        "Gold",
        "gold (2)",
        "GOLD (3)",
        "Tin",
    )
    (tmp_path / "t.ttl").write_text(exported(vocabulary, "skos")[0], encoding="utf-8")
    assert import_taxonomy(tmp_path / "t.ttl").vocabulary.fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused_or_come_back(name: str, tmp_path: Path) -> None:
    draw = random.Random(name)
    whole = (DATA / name).read_bytes()
    path, out = tmp_path / name, tmp_path / "out.ttl"
    for number in range(120):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            start, end = sorted(draw.choices(range(len(data)), k=2))
            data[start : start + draw.randint(0, 20)] = draw.choice(
                [b"", b"\0", b"\xff<", b'"', b"\r", data[end : end + 50]]
            )
        path.write_bytes(data)
        for read in (TagVocabulary.from_path, import_taxonomy):
            with contextlib.suppress(HangtagError):
                found = read(path)
                if isinstance(found, Imported) and number % 10 == 0:
                    out.write_text(exported(found.vocabulary, "skos")[0], encoding="utf-8")
                    assert import_taxonomy(out).vocabulary.fingerprint == found.vocabulary.fingerprint


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
