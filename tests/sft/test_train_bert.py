import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_folder import kill_in_training

from hangtag.baselines.bert import BertTagger
from hangtag.config import load_recipe
from hangtag.errors import DataError
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary
from sft.train_bert import BertRecipe, main

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "sft" / "recipes").glob("bert_*.yaml"))
SAMPLE = ROOT / "src" / "hangtag" / "sample"


def test_every_recipe_loads():
    assert len(RECIPES) >= 3
    for path in RECIPES:
        load_recipe(path, BertRecipe)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("learning_rate: 1", "unknown key `learning_rate`"),
        ("loss: focal", "`loss`"),
        ("trainer: {save_steps: 3}", "trainer.save_steps is set by the program"),
        ("trainer: {num_epochs: 3}", "unknown key `trainer.num_epochs`; did you mean `num_train_epochs`?"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, capsys, recipe, expected):
    (tmp_path / "r.yaml").write_text(recipe)
    code = main(["--data", str(SAMPLE), "--out", str(tmp_path / "run"), str(tmp_path / "r.yaml")])
    message = capsys.readouterr().err
    assert code == 2
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["--data", str(SAMPLE), "--out", str(run), "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    run.mkdir()
    (run / "recipe.yaml").write_text("")
    assert main(["--data", str(SAMPLE), "--out", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    (run / "manifest.json").write_text("{}")
    assert main(["--data", str(SAMPLE), "--out", str(run), "--resume"]) == 2
    assert "completed run" in capsys.readouterr().err


def test_missing_data_is_one_line(tmp_path, capsys):
    assert main(["--data", str(tmp_path / "no"), "--out", str(tmp_path / "run")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_help_names_what_a_stopped_run_needs():
    done = subprocess.run(
        [sys.executable, "-m", "sft.train_bert", "--help"], cwd=ROOT, capture_output=True, check=True
    )
    assert b"--resume" in done.stdout


@pytest.fixture(scope="module")
def facets() -> TagVocabulary:
    return TagVocabulary(
        [
            Tag("red", "colour"),
            Tag("boots", "type"),
            Tag("blue", "colour"),
            Tag("lamp", "type"),
            Tag("warm", "feature"),
        ],
        facets={"colour": FacetLimits(max=1), "type": FacetLimits(min=1, max=1)},
    )


LOGITS = np.array([[1.0, 0.3, -0.5, 1.2, 0.7], [9.0, -2.0, 9.5, 0.1, -0.7]])


def test_facet_softmax_scores_are_shares_of_a_facet_with_none(facets):
    from hangtag.baselines.tag_classifier import scores_of

    scores = scores_of(LOGITS, facets, "facet_softmax")
    powers = np.exp(LOGITS)
    colour = powers[:, [0, 2]] / (1 + powers[:, [0, 2]].sum(axis=1, keepdims=True))
    assert scores[:, [0, 2]] == pytest.approx(colour)
    assert scores[:, [1, 3]].sum(axis=1) == pytest.approx([1.0, 1.0])
    assert scores[:, 4] == pytest.approx(1 / (1 + np.exp(-LOGITS[:, 4])))
    assert scores_of(LOGITS, facets, "bce") == pytest.approx(1 / (1 + np.exp(-LOGITS)))


def tiny(vocabulary, loss):
    import torch
    from transformers import BertConfig, BertModel

    from hangtag.baselines.tag_classifier import TagClassifier

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    return TagClassifier(BertModel(config), vocabulary, loss=loss, dropout=0.0).eval()


@pytest.mark.parametrize("loss", ["bce", "facet_softmax"])
def test_the_head_starts_at_the_tags_shares(facets, loss):
    import torch

    from hangtag.baselines.tag_classifier import scores_of

    gold = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 1]] * 50, dtype=bool)
    model = tiny(facets, loss)
    model.start_at_frequencies(gold, facets)
    torch.nn.init.zeros_(model.head.weight)
    logits = model(torch.tensor([[5, 6]]), torch.ones(1, 2))["logits"].detach().numpy()
    assert scores_of(logits, facets, loss)[0] == pytest.approx(gold.mean(axis=0), abs=0.01)


def test_the_loss_is_minus_the_log_score_of_what_is_gold(facets):
    import torch

    from hangtag.baselines.tag_classifier import scores_of

    ids, mask = torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    labels = torch.tensor([[1.0, 0, 0, 1, 1], [0, 1, 0, 0, 0]])
    model = tiny(facets, "facet_softmax")
    out = model(ids, mask, labels)
    scores = scores_of(out["logits"].detach().numpy(), facets, "facet_softmax")
    first = np.log(scores[0, 0]) + np.log(scores[0, 3]) + np.log(scores[0, 4])
    second = np.log(1 - scores[1, 0] - scores[1, 2]) + np.log(scores[1, 1]) + np.log(1 - scores[1, 4])
    assert out["loss"].item() == pytest.approx(-(first + second) / 2, rel=1e-5)

    model = tiny(facets, "bce")
    out = model(ids, mask, labels)
    scores = scores_of(out["logits"].detach().numpy(), facets, "bce")
    gold = labels.numpy().astype(bool)
    assert out["loss"].item() == pytest.approx(-np.log(np.where(gold, scores, 1 - scores)).sum() / 2, rel=1e-5)


def test_padding_changes_nothing(facets):
    import torch

    model = tiny(facets, "bce")
    alone = model(torch.tensor([[5, 6]]), torch.tensor([[1, 1]]))["logits"]
    padded = model(torch.tensor([[5, 6, 0, 0]]), torch.tensor([[1, 1, 0, 0]]))["logits"]
    assert torch.allclose(alone, padded, atol=1e-6)


def test_batches_hold_rows_of_like_length_in_an_order_of_seed_and_epoch():
    from sft.bert_trainer import LengthGrouped

    lengths = [number % 37 for number in range(1003)]
    sampler = LengthGrouped(lengths, 8, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    assert len(sampler) == 1003
    assert first == list(sampler) == list(LengthGrouped(lengths, 8, seed=1))
    assert first != list(LengthGrouped(lengths, 8, seed=2))
    sampler.set_epoch(1)
    assert first != list(sampler)
    batches = [[lengths[row] for row in first[at : at + 8]] for at in range(0, 1000, 8)]
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 4
    # Long and short batches alternate; a course from short to long would be unlearnt at its end.
    assert abs(np.corrcoef(range(len(batches)), [np.mean(batch) for batch in batches])[0, 1]) < 0.4


def test_set_f1_keeps_the_thresholds_it_tuned(facets):
    from transformers import EvalPrediction

    from sft.bert_trainer import SetF1

    gold = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=bool)
    logits = np.where(gold, -1.0, -3.0)
    measure = SetF1(facets, "bce", gold)
    assert measure(EvalPrediction(logits, gold)) == {"set_f1": 1.0, "exact_match": 1.0}
    assert 0.05 < measure.thresholds["colour"] < 0.27


RECIPE = """
model: minilm-l6
loss: facet_softmax
max_length: 16
limit: 36
dropout: 0.2
evaluations_per_epoch: 1
checkpoint_minutes: 0
trainer: {bf16: false, num_train_epochs: 4, per_device_train_batch_size: 8, save_total_limit: 2}
"""


def command(run, *more):
    return [sys.executable, "-m", "sft.train_bert", "--data", str(SAMPLE), "--out", str(run), *more]


@pytest.mark.model
def test_a_killed_run_resumes_to_the_same_weights_and_tags(tmp_path, monkeypatch):
    from safetensors.numpy import load_file

    from hangtag.catalogue.labelled import load_dataset

    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(command(whole, str(recipe)), cwd=ROOT, capture_output=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["steps"] == 20

    # In the second epoch or later, in the middle of it or while a checkpoint is written.
    when = kill_in_training(command(broken, str(recipe)), broken, at=7, steps=20)
    with pytest.raises(DataError, match="did not complete"):
        BertTagger(broken)
    subprocess.run(command(broken, "--resume"), cwd=ROOT, capture_output=True, check=True)

    for name in ("model.safetensors", "head.safetensors"):
        one, other = load_file(whole / "model" / name), load_file(broken / "model" / name)
        assert one.keys() == other.keys()
        for key in one:
            assert np.allclose(one[key], other[key], rtol=0, atol=1e-5), (key, when)
    assert json.loads((whole / "metrics.json").read_bytes())["validation"] == pytest.approx(
        json.loads((broken / "metrics.json").read_bytes())["validation"]
    )
    assert not (broken / "checkpoints").exists()

    products = load_dataset(SAMPLE, splits=("validation",)).validation
    tagger = BertTagger(broken, batch_size=7)
    taggings = tagger.tag(products)
    assert [tagging.id for tagging in taggings] == [product.id for product in products]
    for tagging in taggings:
        held = [tag.facet for tag in tagging.tags]
        for facet, limits in tagger.vocabulary.facets.items():
            assert limits.min <= held.count(facet)
            assert limits.max is None or held.count(facet) <= limits.max
    again = BertTagger(broken, batch_size=7).tag([products[3], products[0]])
    assert [tagging.names for tagging in again] == [taggings[3].names, taggings[0].names]
    assert tagger.tag([]) == []
