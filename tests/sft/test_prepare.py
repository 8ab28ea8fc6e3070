from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import transformers
import yaml
from tiny_model import make_tiny_model

from hangtag import Product, Tag, TagVocabulary
from hangtag.catalogue.labelled import load_labelled
from hangtag.engines.transformers_local import TransformersEngine
from hangtag.errors import RecipeError
from hangtag.language_model.run import AnswerSettings
from hangtag.loading import fine_tuned_tagger
from hangtag.sample import sample_folder
from sft.labelled import tag_counts
from sft.pairs import TagOrder, answer_settings, augment, with_tail_repeated
from sft.prepare import main
from sft.recipe import Augmentation, TrainRecipe


def prepare(folder: Path, data: Path, **changes) -> tuple[int, Path]:
    recipe = {"model": str(make_tiny_model(folder / "base")), **changes}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = folder / "pairs"
    return main([str(folder / "recipe.yaml"), "--data", str(data), "--out", str(out)]), out


@pytest.mark.parametrize("answer", ["tag_tokens", "text"])
@pytest.mark.parametrize("chat", ["plain", "base"])
def test_pairs_are_what_the_tagger_reads_and_may_write(tmp_path, answer, chat):
    code, out = prepare(tmp_path, sample_folder(), answer=answer, chat=chat)
    assert code == 0
    rows = pq.read_table(out / "train.parquet").to_pylist()
    products = load_labelled(sample_folder() / "train.jsonl")
    assert [row["id"] for row in rows] == [product.id for product in products]
    vocabulary = TagVocabulary.from_path(out / "vocabulary.json")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "tokenizer")
    recipe = TrainRecipe(model="x", answer=answer, chat=chat)
    settings: AnswerSettings = answer_settings(recipe, products, vocabulary, tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tagger = fine_tuned_tagger(
        TransformersEngine.around(model, tokenizer, name="tiny"), vocabulary, settings, template=recipe.template
    )
    prompts = tagger.prompt_ids(products)
    constraint = tagger.plan.constraint
    prefix = list(tagger.plan.prefix)
    for row, product, prompt in zip(rows, products, prompts, strict=True):
        assert row["prompt"] + prefix == prompt
        assert row["answer"][: len(prefix)] == prefix
        state = constraint.start(limits=settings.limits, max_tokens=settings.max_tokens)
        for token in row["answer"]:
            assert token in constraint.allowed(state)
            constraint.advance(state, token)
        assert state.is_done
        assert set(constraint.decode(row["answer"])) == set(product.tags)


def test_the_report_counts(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "vocabulary.json").write_text(json.dumps([{"tag": t, "facet": "colour"} for t in ("red", "blue")]))
    rows = [("1", "shoe", ["red"]), ("2", "shoe", ["blue"]), ("3", "hat " * 200, ["red"]), ("4", "cap", [])]
    (data / "train.jsonl").write_text(
        "".join(json.dumps({"id": i, "title": t, "tags": tags}) + "\n" for i, t, tags in rows)
    )
    (data / "validation.jsonl").write_text(json.dumps({"id": "9", "title": "cap", "tags": ["red"]}) + "\n")
    code, out = prepare(tmp_path, data, title=20)
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    train = report["splits"]["train"]
    assert train["num_pairs"] == 4
    assert train["cut_share"] == 0.25
    assert train["repeated_texts"] == 1
    assert train["answer_tokens"]["max"] == 3
    assert report["texts_in_both_splits"] == 1
    assert report["suspected_label_errors"]["products"] == 2
    assert [row["id"] for row in report["suspected_label_errors"]["examples"]] == ["1", "2"]
    assert report["tags_by_facet"] == {"colour": 3}
    cut = pq.read_table(out / "train.parquet").to_pylist()[2]
    assert cut["is_cut"]
    assert cut["tags"] == ["red"]
    assert len(cut["answer"]) == 3


def test_an_unknown_label_is_one_line(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "vocabulary.json").write_text('[{"tag": "red"}]')
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text('{"id": "1", "title": "x", "tags": ["rad"]}\n')
    code, _ = prepare(tmp_path, data)
    assert code == 2
    assert "'rad' (1 times)" in capsys.readouterr().err


def test_orders():
    vocabulary = TagVocabulary(
        [Tag("red", "colour"), Tag("shoe", "type"), Tag("blue", "colour"), Tag("hat", "type")]
    )
    products = [Product(id=str(n), title="x", tags=tags) for n, tags in enumerate([("hat",), ("hat", "blue")])]
    counts, generator = tag_counts(products), random.Random(0)
    tags = ("hat", "red", "blue")
    assert TagOrder("facet", vocabulary, counts)(tags, generator) == ("red", "blue", "hat")
    assert TagOrder("frequency", vocabulary, counts)(tags, generator) == ("hat", "blue", "red")
    assert TagOrder(["type"], vocabulary, counts)(tags, generator) == ("hat", "red", "blue")
    with pytest.raises(RecipeError, match="no facet 'typ'; expected some of colour, type"):
        TagOrder(["typ"], vocabulary, counts)
    found = {TagOrder("random", vocabulary, counts)(tags, random.Random(n)) for n in range(40)}
    assert len(found) == 6


def test_augmentation_is_seeded_and_keeps_tags():
    vocabulary = TagVocabulary([Tag("red", aliases=("crimson",))])
    product = Product(id="1", title="Red shoe", description="A red one", attributes={"size": "4"}, tags=("red",))

    def augmented(seed: int, **shares) -> Product:
        return augment(product, Augmentation(**shares), random.Random(seed), vocabulary)

    assert augmented(1) == product
    assert augmented(1, drop_description=1).description == ""
    assert {bool(augmented(seed, drop_attributes=1).attributes) for seed in range(20)} == {True, False}
    assert any("crimson" in augmented(seed, synonyms=1).text for seed in range(5))
    noisy = augmented(3, typos=1, synonyms=1, drop_attributes=1)
    assert noisy == augmented(3, typos=1, synonyms=1, drop_attributes=1)
    assert noisy.tags == product.tags


def test_products_with_rare_tags_are_repeated():
    products = [Product(id=str(n), title="x", tags=("often",)) for n in range(99)]
    products.append(Product(id="rare", title="x", tags=("often", "rare")))
    assert with_tail_repeated(products, 0.0, seed=1) == products
    repeated = with_tail_repeated(products, 0.09, seed=1)
    assert sum(product.id == "rare" for product in repeated) == 3
    assert len(repeated) == 102
