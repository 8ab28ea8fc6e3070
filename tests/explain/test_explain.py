"""Why a tag: where the spans stand, that a linear tagger's sum up to its log-odds, and that they are faithful."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hangtag import Product, TagVocabulary
from hangtag.baselines.lexical import word_spans, words_of
from hangtag.baselines.linear import LinearTagger
from hangtag.catalogue.labelled import load_dataset
from hangtag.cli import main
from hangtag.explain.faithfulness import losses
from hangtag.explain.linear import LinearExplainer
from hangtag.explain.spans import fields_of, without
from hangtag.explain.words import WordExplainer
from hangtag.sample import sample_folder


@pytest.fixture(scope="module")
def linear() -> LinearTagger:
    pytest.importorskip("sklearn")
    data = load_dataset(sample_folder())
    return LinearTagger.fit(data.train, data.validation, data.vocabulary)


@pytest.mark.parametrize("text", ["Red shoes, size 42", "红色鞋 ﬁne ＲＥＤ Straße", "İstanbul 👟 x-y", ""])
def test_words_stand_where_they_say(text: str) -> None:
    assert [word for word, _, _ in word_spans(text)] == words_of(text)
    for word, start, end in word_spans(text):
        assert words_of(text[start:end]) == [word]


def test_words_that_fold_together_are_passed_over() -> None:
    vocabulary = TagVocabulary.from_json(["ガス", "red"])
    half_width = Product(id="1", title="ｶﾞｽ red")
    assert WordExplainer(vocabulary).explain(half_width, ["red"]) == {"red": ()}


def test_a_longer_term_does_not_reach_over_the_end() -> None:
    vocabulary = TagVocabulary.from_json(["shoe", "shoe care"])
    [span] = WordExplainer(vocabulary).explain(Product(id="1", title="White shoe"), ["shoe"])["shoe"]
    assert (span.start, span.end) == (6, 10)


def test_names_aliases_stems_and_tags_below_are_found(vocabulary: TagVocabulary, product: Product) -> None:
    shown = Product(id="1", title="CRIMSON running shoes", description="A shoe in red, not waterproof")
    found = WordExplainer(vocabulary).explain(shown, ["red", "running shoes", "shoes", "waterproof", "blue"])
    assert [(span.field, span.text, span.kind) for span in found["red"]] == [
        ("title", "CRIMSON", "name"),
        ("description", "red", "name"),
    ]
    assert [(span.text, span.kind) for span in found["running shoes"]] == [("running shoes", "name")]
    assert [(span.text, span.kind) for span in found["shoes"]] == [("running shoes", "below"), ("shoe", "stem")]
    assert [span.kind for span in found["waterproof"]] == ["denied"]
    assert found["blue"] == ()
    for spans in found.values():
        assert all(dict(fields_of(shown))[span.field][span.start : span.end] == span.text for span in spans)
    by_attribute = WordExplainer(vocabulary).explain(product, ["red"])["red"]
    assert [(span.field, span.text) for span in by_attribute] == [("attributes.colour", "red")]


def test_a_linear_taggers_spans_sum_up_to_its_log_odds(linear: LinearTagger) -> None:
    products = [
        *load_dataset(sample_folder()).test[:20],
        Product(id="x", description="İĞ ΣΣ. x. ", title="Ünïted.."),
    ]
    for product in products:
        names = linear.vocabulary.names[:30]
        odds = linear.log_odds([product])[0, :30]
        adds = linear.attributions(product.text, names).sum(axis=0)
        np.testing.assert_allclose(adds + linear.bias_of(names), odds, atol=1e-3)
        if not product.attributes:
            spans = LinearExplainer(linear).explain(product, names)
            sums = [sum(span.contribution for span in spans[name]) for name in names]
            # What is left are the full stops that `Product.text` puts between fields.
            np.testing.assert_allclose(sums, adds, atol=0.35)


def test_linear_spans_stand_in_their_fields(linear: LinearTagger, product: Product) -> None:
    for one in (product, *load_dataset(sample_folder()).test[:20]):
        for spans in LinearExplainer(linear).explain(one, linear.vocabulary.names[:5]).values():
            assert spans
            assert all(dict(fields_of(one))[span.field][span.start : span.end] == span.text for span in spans)


def test_a_product_without_a_span(product: Product) -> None:
    assert without(product, "title", 0, 5).title == "runner"
    assert without(product, "attributes.colour", 0, 3).attributes == {"size": "42"}


def test_the_top_span_costs_more_than_a_random_one(linear: LinearTagger) -> None:
    products = load_dataset(sample_folder()).test
    tags = [tagging.names for tagging in linear.tag(products)]
    found = losses(linear.log_odds, LinearExplainer(linear), products, tags, linear.vocabulary, seed=1)
    assert len(found.top) > 100
    assert found.top.mean() > 2 * found.random.mean()

    class Backwards:
        def explain(self, product, names):
            spans = LinearExplainer(linear).explain(product, names)
            return {
                name: tuple(sorted((s for s in some if s.contribution > 0), key=lambda s: s.contribution))
                for name, some in spans.items()
            }

    worst = losses(linear.log_odds, Backwards(), products, tags, linear.vocabulary, seed=1)
    assert worst.top.mean() < found.top.mean() / 2


def test_tag_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tags.txt").write_text("red\nshoes\n")
    command = [
        "tag",
        "Red canvas shoe",
        "--vocabulary",
        str(tmp_path / "tags.txt"),
        "--baseline",
        "lexical",
        "--why",
    ]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tags"][0]["tag"] == "red"
    [span] = answer["why"]["red"]
    assert (span["field"], span["start"], span["end"], span["text"]) == ("title", 0, 3, "Red")
    assert main(command) == 0
    assert '"Red"' in capsys.readouterr().out
