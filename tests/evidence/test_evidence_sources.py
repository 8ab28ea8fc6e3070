"""Sources of evidence, their weights, and what they lead to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fake_engine import FakeEngine

from hangtag import Product, Tag, TagVocabulary, load_tagger
from hangtag.baselines.facet_decoding import tag_matrix
from hangtag.encoders.nearest import TextEncoder
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.errors import DataError
from hangtag.evidence.fusion import Fusion, WeighedSources
from hangtag.evidence.labels import LabelSource
from hangtag.evidence.lexical import LexicalSource
from hangtag.evidence.loading import LEARNING, SOURCES, WEIGHTS, default_fusion, load_evidence
from hangtag.evidence.nearest import NearestSource
from hangtag.evidence.tagger import EvidenceTagger
from hangtag.vocabulary import FacetLimits

SHOP = TagVocabulary(
    [
        Tag("clothing", "kind"),
        Tag("dress", "kind", parent="clothing"),
        Tag("shoes", "kind"),
        Tag("red", "colour", aliases=("crimson",)),
        Tag("blue", "colour"),
        Tag("leather", "material"),
        Tag("trail running", "use"),
    ],
    facets={"colour": FacetLimits(max=1)},
)


def lexical(text: str, **fields: str) -> dict[str, dict[str, float]]:
    """What the lexical source says of each tag: its scores that are not zero."""
    source = LexicalSource(SHOP)
    [row] = source.scores([Product(id="1", title=text, **fields)])
    return {
        name: {column: float(value) for column, value in zip(source.columns, scores, strict=True) if value}
        for name, scores in zip(SHOP.names, row, strict=True)
    }


def test_words_are_found_with_their_place_and_the_tags_around_them() -> None:
    said = lexical("Crimson dress", description="Goes with blue shoes")
    assert said["red"] == {"found": 1, "in_title": 1, "overlap": 1, "title_overlap": 1}
    assert said["blue"] == {"found": 1, "overlap": 1}
    assert said["dress"] | {"found": 1, "in_title": 1, "overlap": 1, "title_overlap": 1} == said["dress"]
    assert said["clothing"] == {"child": 1, "child_in_title": 1, "rival": 1}
    assert said["leather"] == {}


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Shoes without leather", "leather"),
        ("Not real leather", "leather"),
        ("Leather-free shoes", "leather"),
        ("Schuhe ohne leather", "leather"),
    ],
)
def test_a_denied_tag_is_not_found(text: str, tag: str) -> None:
    said = lexical(text)[tag]
    assert said.get("denied") == 1
    assert "found" not in said
    assert "stem" not in said


def test_other_endings_and_parts_of_a_term_count_less() -> None:
    said = lexical("Dresses for running")
    assert said["dress"]["stem"] == 1
    assert "found" not in said["dress"]
    assert said["trail running"] == {"overlap": 0.5, "title_overlap": 0.5}


def test_chinese_terms_are_found_and_denied() -> None:
    source = LexicalSource(TagVocabulary.from_json(["真皮", "防水"]))
    [row] = source.scores([Product(id="1", title="防水鞋,非真皮")])
    found, denied = source.columns.index("found"), source.columns.index("denied")
    assert row[:, found].tolist() == [0, 1]
    assert row[:, denied].tolist() == [1, 0]


class Letters:
    """An encoder whose vectors count letters."""

    name = "letters"

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_the_nearest_label_of_a_facet_is_its_best() -> None:
    source = LabelSource(SHOP, Letters())
    [row] = source.scores([Product(id="1", title="shoe")])
    said = {
        name: dict(zip(source.columns, scores, strict=True)) for name, scores in zip(SHOP.names, row, strict=True)
    }
    assert next(name for name in SHOP.names if said[name]["name_best"]) == "shoes"
    assert said["shoes"]["name_share"] > 0 > said["dress"]["name_share"]
    assert said["clothing"]["has_child"] == said["dress"]["has_parent"] == 1
    assert said["dress"]["facet_size"] == pytest.approx(np.log(3))


def test_text_in_other_scripts_says_nothing_to_a_latin_encoder() -> None:
    source = LabelSource(SHOP, Letters())
    [row] = source.scores([Product(id="1", title="红色鞋")])
    said = [source.columns.index(name) for name in ("name", "meaning", "name_best", "meaning_share")]
    assert row[:, said] == pytest.approx(0, abs=1e-6)


def test_neighbours_vote() -> None:
    examples = [
        Product(id="1", title="red shoes", tags=("red", "shoes")),
        Product(id="2", title="blue dress", tags=("blue", "dress")),
    ]
    encoder: TextEncoder = TfidfEncoder([example.text for example in examples])
    source = NearestSource(SHOP, examples, encoder)
    [row] = source.scores([Product(id="3", title="red shoes")])
    votes = dict(zip(SHOP.names, row[:, 0], strict=True))
    assert votes["red"] > 2 > 0 > votes["dress"]
    assert votes["leather"] == pytest.approx(np.log(0.05 / 1.05), abs=1e-5)


def weights(**changes: float) -> dict[str, float]:
    return {f"lexical.{column}": 0.0 for column in LexicalSource.columns} | {
        f"lexical.{name}": value for name, value in changes.items()
    }


def test_log_odds_are_the_weighted_sum_and_facets_depart_from_it() -> None:
    fusion = Fusion(
        weights=weights(found=3.0, denied=-2.0),
        bias=-1.0,
        by_facet={"colour": {"lexical.found": 5.0, "bias": -4.0}},
    )
    sources = load_evidence(fusion, SHOP)
    [odds] = sources.log_odds([Product(id="1", title="red shoes without leather")])
    by_name = dict(zip(SHOP.names, odds.tolist(), strict=True))
    assert by_name == pytest.approx(
        {"clothing": -1, "dress": -1, "shoes": 2, "red": 1, "blue": -4, "leather": -3, "trail running": -1}
    )


def test_the_tagger_keeps_to_threshold_and_facets() -> None:
    fusion = Fusion(weights=weights(found=4.0), bias=-2.0, threshold=0.5)
    tagger = EvidenceTagger(load_evidence(fusion, SHOP))
    tagging, empty = tagger.tag([Product(id="1", title="red and blue shoes"), Product(id="2", title="a cup")])
    assert set(tagging.names) in ({"red", "shoes"}, {"blue", "shoes"})
    assert tagging.tags[0].confidence == pytest.approx(1 / (1 + np.exp(-2)))
    assert empty.names == ()
    assert tagger.tag([]) == []


def test_evidence_leads_the_decoder_and_its_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.language_model.piece_tokenizer.HFPieceTokenizer", lambda tokenizer: tokenizer)
    fusion = Fusion(weights=weights(found=8.0), bias=-4.0, sharpness=8.0)
    products = [Product(id=str(n), title=title) for n, title in enumerate(["red shoes", "blue dress, leather"])]
    tagger = load_tagger(SHOP, FakeEngine(), evidence=fusion)
    by_evidence = 1 / (1 + np.exp(-4))
    for tagging, expected in zip(
        tagger.tag(products), [{"red", "shoes"}, {"blue", "dress", "leather"}], strict=True
    ):
        assert {*tagging.names} == expected
        assert all(tag.confidence == pytest.approx(by_evidence, rel=1e-3) for tag in tagging.tags[-1:])
    free = load_tagger(SHOP, FakeEngine(), evidence=None)
    assert [tagging.names for tagging in free.tag(products)] != [tagging.names for tagging in tagger.tag(products)]


@pytest.mark.parametrize("has_examples", [False, True])
def test_default_weights_fit_their_sources(has_examples: bool) -> None:
    examples = [Product(id="1", title="red shoes", tags=("red", "shoes"))] if has_examples else []
    for path in sorted(WEIGHTS.glob("*.json")):
        fusion = Fusion.read(path)
        kinds = {name.partition(".")[0] for name in fusion.weights}
        if not has_examples and kinds & LEARNING:
            with pytest.raises(DataError, match="learns from labelled products"):
                load_evidence(fusion, SHOP)
            continue
        made = [
            LabelSource(SHOP, Letters()) if name == "labels" else SOURCES[name](SHOP, examples)
            for name in sorted(kinds)
        ]
        odds = WeighedSources(SHOP, made, fusion).log_odds([Product(id="1", title="red shoes")])
        gold = tag_matrix([("red", "shoes")], SHOP)
        assert odds[gold].min() > odds[~gold].max(), path.name
    assert default_fusion(has_examples=has_examples).weights


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no weights of evidence"),
        ("{}", "Field required"),
        ('{"weights": {}}', "no weights"),
        ('{"weights": {"lexical.found": "much"}}', "valid number"),
        ('{"weights": {"lexical.found": Infinity}}', "finite"),
        ('{"weights": {"lexical.found": 1}, "threshold": 1}', "less than 1"),
    ],
)
def test_what_are_no_weights_is_one_line(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(DataError, match=expected):
        Fusion.read(path)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        (Fusion(weights=weights() | {"words.found": 1.0}), "'words' is unknown"),
        (Fusion(weights={"lexical.found": 1.0}), "it has no weight"),
        (Fusion(weights=weights() | {"lexical.nose": 1.0}), "no source gives it"),
        (Fusion(weights=weights(), by_facet={"size": {"bias": 1.0}}), "'size', which is not in the vocabulary"),
        (Fusion(weights=weights(), by_facet={"colour": {"lexical.nose": 1.0}}), "'lexical.nose' of the facet"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(fusion: Fusion, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load_evidence(fusion, SHOP)


def test_weights_written_down_are_read_as_they_were(tmp_path: Path) -> None:
    fusion = Fusion(weights=weights(found=1.5), bias=-2.0, threshold=0.25, sharpness=3.0, fitted_on={"shop": 7})
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(fusion.model_dump()))
    assert Fusion.read(path) == fusion
