from __future__ import annotations

import json
from pathlib import Path

import pytest

from hangtag import FacetLimits, Product, Tag, TagVocabulary
from hangtag.errors import VocabularyError


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reads_one_tag_a_line_csv_and_json(tmp_path: Path) -> None:
    plain = TagVocabulary.from_path(write(tmp_path, "tags.txt", "red\r\nhigh heels\n"))
    assert plain.names == ("red", "high heels")
    table = TagVocabulary.from_path(
        write(
            tmp_path,
            "tags.csv",
            "tag,facet,parent,aliases,count\nred,colour,,crimson|红色,3\nrose,colour,red,,1\n",
        )
    )
    assert table["red"] == Tag("red", "colour", aliases=("crimson", "红色"), count=3)
    assert table.ancestors("rose") == ("red",)
    document = {"tags": ["a", {"tag": "b", "facet": "f"}], "facets": {"f": {"max": 1}}}
    parsed = TagVocabulary.from_path(write(tmp_path, "tags.json", json.dumps(document)))
    assert parsed.facets["f"].is_exclusive
    assert not parsed.facets[""].is_exclusive


def test_json_round_trip(tmp_path: Path, vocabulary: TagVocabulary) -> None:
    limited = vocabulary.with_limits({"colour": FacetLimits(min=1, max=2)})
    limited.save(tmp_path / "v.json")
    again = TagVocabulary.from_path(tmp_path / "v.json")
    assert again.tags == limited.tags
    assert again.facets == limited.facets
    assert again.fingerprint == vocabulary.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.txt", "red\n\nblue\n", ":2: a blank tag"),
        ("t.txt", "red\nblue\nRed\n", ":3: tag 'Red' repeats 'red' of"),
        ("t.txt", "caf\u00e9\ncafe\u0301\n", ":2: tag"),
        ("t.txt", "red\n blue\n", "begins or ends with a space"),
        ("t.txt", "re\x07d\n", "control character"),
        ("t.txt", b"r\xff\n", "not UTF-8 (byte 1)"),
        ("t.txt", "", "blank tag"),
        ("t.json", "[]", "no tags"),
        ("t.json", "[\n{}\n]", ":2: `tag`: Field required"),
        ("t.json", '["a",\n"b",\n"A"]', ":3: tag 'A' repeats 'a' of"),
        ("t.json", '[{"tag": "a", "parent": "z"}]', "unknown parent 'z'"),
        ("t.json", '[{"tag":"a","parent":"b"},{"tag":"b","parent":"z"}]', "tag 'b' has the unknown parent 'z'"),
        ("t.json", '[{"tag":"a","parent":"b"},{"tag":"b","parent":"a"}]', "cycle of parents: a -> b -> a"),
        ("t.json", '[{"tag": "a", "colour": 1}]', "`colour`"),
        ("t.json", '{"tags": ["a"], "facts": {}}', "unknown key 'facts'"),
        ("t.json", '{"tags": ["a"], "facets": {"x": {"max": 1}}}', "facet 'x', which no tag has"),
        ("t.json", '{"tags": ["a"], "facets": {"": {"min": 2}}}', "more than its 1 tags"),
        ("t.json", '{"tags": ["a"], "facets": {"": {"min": 1, "max": 0}}}', "max 0 is below min 1"),
        ("t.json", '{"tags": ["a"], "facets": {"": {"most": 1}}}', "expected {min, max}"),
        ("t.json", '{"tags": ["a"], "facets": ["b"]}', "`facets`: got ['b'], expected"),
        ("t.json", '["a"', ":1: not JSON"),
        ("t.json", "3", "got int, expected a JSON list"),
        ("t.csv", "name\nred\n", ":1: columns name; expected a column `tag`"),
        ("t.csv", "tag,color\nred,x\n", "unknown column 'color'"),
        ("t.csv", "tag,facet\n,x\n", ":2: a blank tag"),
    ],
)
def test_refuses_with_file_line_and_reason(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(VocabularyError) as caught:
        TagVocabulary.from_path(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="No such file"):
        TagVocabulary.from_path(tmp_path / "none.json")


def test_fingerprint_names_the_tags_not_their_counts_or_limits(vocabulary: TagVocabulary) -> None:
    counted = TagVocabulary.build([Product(id="1", title="x", tags=("red",))], base=vocabulary)
    assert counted["red"].count == 1
    assert counted["blue"].count == 0
    assert vocabulary.with_limits({"colour": FacetLimits(max=1)}).fingerprint == vocabulary.fingerprint
    assert TagVocabulary(vocabulary.tags[::-1]).fingerprint != vocabulary.fingerprint


def test_a_tag_may_have_an_id_and_names_in_languages(tmp_path: Path) -> None:
    document = [{"tag": "red", "id": 166, "labels": {"de": "rot"}}, {"tag": "blue", "id": "http://x.example/b"}]
    vocabulary = TagVocabulary.from_json(document)
    assert (vocabulary["red"].id, vocabulary["red"].labels) == ("166", {"de": "rot"})
    vocabulary.save(tmp_path / "v.json")
    assert TagVocabulary.from_path(tmp_path / "v.json").tags == vocabulary.tags
    table = write(tmp_path, "t.csv", "id,tag,label_de,label_fr\n166,red,rot,\nhttp://x.example/b,blue,,\n")
    assert TagVocabulary.from_path(table).tags == vocabulary.tags
    with pytest.raises(VocabularyError, match="'b' has the id '1' of 'a'; an id names one tag"):
        TagVocabulary([Tag("a", id="1"), Tag("b", id="1")])


def test_ids_enter_the_fingerprint_and_change_none_without() -> None:
    plain, named = TagVocabulary([Tag("red")]), TagVocabulary([Tag("red", id="1")])
    assert plain.fingerprint.startswith("17b8e7300f435eca")
    assert named.fingerprint not in (plain.fingerprint, TagVocabulary([Tag("red", id="2")]).fingerprint)
    assert TagVocabulary([Tag("red", labels={"de": "rot"})]).fingerprint == plain.fingerprint


def test_a_path_has_the_names_without_what_made_them_unique() -> None:
    vocabulary = TagVocabulary(
        [
            Tag("Men"),
            Tag("Men > Shoes", parent="Men"),
            Tag("Men > Shoes > Boots", parent="Men > Shoes"),
            Tag("Shoes > Lace", parent="Men > Shoes"),
            Tag("Colour > Gold", "Colour"),
            Tag("Up > Down"),
        ]
    )
    assert vocabulary.path("Men > Shoes > Boots") == ("Men", "Shoes", "Boots")
    assert vocabulary.path("Shoes > Lace") == ("Men", "Shoes", "Lace")
    assert vocabulary.path("Colour > Gold") == ("Gold",)
    assert vocabulary.path("Up > Down") == ("Up > Down",)


def test_build_counts_products_most_frequent_first() -> None:
    products = [
        Product(id="1", title="x", tags=("b", "a")),
        Product(id="2", title="x", tags=("b", "b")),
        Product(id="3", title="x"),
    ]
    built = TagVocabulary.build(products)
    assert [(tag.tag, tag.count) for tag in built] == [("b", 2), ("a", 1)]
    with pytest.raises(VocabularyError, match="no product carries a tag"):
        TagVocabulary.build(products[2:])


def test_observed_limits() -> None:
    vocabulary = TagVocabulary([Tag("r", "colour"), Tag("g", "colour"), Tag("s", "type"), Tag("t", "kind")])
    limited = vocabulary.with_observed_limits([["r", "s"], ["r", "g", "s"], ["s", "unknown"]])
    assert limited.facets == {
        "colour": FacetLimits(min=0, max=None),
        "type": FacetLimits(min=1, max=1),
        "kind": FacetLimits(min=0, max=1),
    }
