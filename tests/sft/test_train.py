from __future__ import annotations

import json
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from run_folder import kill_in_training
from safetensors.torch import load_file
from tiny_model import make_tiny_model
from tiny_training import run, write_recipe

from hangtag.config import load_recipe
from hangtag.language_model.calibration import Calibration
from hangtag.language_model.run import read_run
from hangtag.sample import sample_folder
from sft.recipe import TrainRecipe
from sft.run_directory import check_trainer_options

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [
    path
    for name in ("*_*lora*.yaml", "smollm2_full*.yaml", "smoke.yaml")
    for path in sorted((ROOT / "sft" / "recipes").glob(name))
]


def test_every_recipe_loads():
    assert len(RECIPES) >= 5
    for path in RECIPES:
        recipe = load_recipe(path, TrainRecipe)
        check_trainer_options(recipe.trainer, "trl.SFTConfig", frozenset())
        assert recipe.template.is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"answer": "text", "chat": "base"},
        {"order": "free", "augment": {"typos": 0.5, "synonyms": 0.5}, "tail_threshold": 0.2},
        {"method": "dora"},
        {"method": "adalora", "trainer": {"num_train_epochs": 4}},
        {"method": "full"},
        {"method": "prefix"},
        {"trainer": {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}},
    ],
    ids=["tag_tokens", "text", "free", "dora", "adalora", "full", "prefix", "accumulated"],
)
def test_a_run_is_complete(tmp_path, capsys, changes):
    out = tmp_path / "run"
    assert run(write_recipe(tmp_path, **changes), "--data", sample_folder(), "--out", out) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == {"set_f1", "exact_match"}
    trained = read_run(out)
    assert trained.answers.answer == changes.get("answer", "tag_tokens")
    assert trained.manifest.kind == changes.get("method", "lora")
    assert (out / "vocabulary.json").is_file()
    assert len(trained.vocabulary) == 124
    Calibration.load(out / "calibration.json")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["history"]
    assert metrics["since_start_or_resume"]["samples_per_s"] > 0
    weights = out / ("weights" if changes.get("method") == "full" else "adapter")
    assert (weights / "tag_rows.safetensors").is_file() == (trained.answers.answer == "tag_tokens")
    if changes.get("method") != "full":
        # The base model, its embedding included, is not written again.
        assert not any("embed_tokens" in name for name in load_file(weights / "adapter_model.safetensors"))
    assert not (out / "checkpoints").exists()


def test_training_lowers_the_loss(tmp_path, capsys):
    recipe = write_recipe(
        tmp_path,
        rows_learning_rate=0.01,  # three times as high, it is chance whether it learns
        trainer={"num_train_epochs": 12, "learning_rate": 0.005},
        patience=30,
    )
    assert run(recipe, "--data", sample_folder(), "--out", tmp_path / "run") == 0
    losses = [float(loss) for loss in re.findall(r"'loss': '([\d.]+)'", capsys.readouterr().out)]
    assert len(losses) == 72
    assert max(losses[-6:]) < losses[0] / 2


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    recipe = write_recipe(
        tmp_path, checkpoint_minutes=0, dropout=0.1, order="random", patience=99, trainer={"num_train_epochs": 12}
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(recipe, "--data", sample_folder(), "--out", whole) == 0
    command = [sys.executable, "-m", "sft.train", "--data", str(sample_folder()), "--out", str(killed)]
    at = random.Random().randint(2, 30)  # older checkpoints are removed meanwhile
    when = kill_in_training([*command, str(recipe)], killed, at=at, steps=72)
    assert run("--data", sample_folder(), "--out", killed, "--resume") == 0
    for name in ("adapter_model.safetensors", "tag_rows.safetensors"):
        one, other = (load_file(folder / "adapter" / name) for folder in (whole, killed))
        assert one.keys() == other.keys()
        for key in one:
            assert torch.allclose(one[key], other[key], atol=1e-4), (name, key, when)


def test_accumulated_batches_train_as_one_large_batch(tmp_path):
    states = []
    for size, steps in ((4, 1), (1, 4)):
        recipe = write_recipe(
            tmp_path,
            dropout=0.0,
            trainer={"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1},
            limit=4,
        )
        out = tmp_path / f"run{size}"
        assert run(recipe, "--data", sample_folder(), "--out", out) == 0
        states.append(load_file(out / "adapter" / "tag_rows.safetensors")["input"])
    assert torch.allclose(*states, atol=1e-5)


def test_a_run_goes_on_with_a_grown_vocabulary(tmp_path):
    first = tmp_path / "first"
    assert run(write_recipe(tmp_path), "--data", sample_folder(), "--out", first) == 0
    data = tmp_path / "grown"
    shutil.copytree(sample_folder(), data)
    vocabulary = json.loads((data / "vocabulary.json").read_text())
    vocabulary["tags"].insert(3, {"tag": "brand new", "facet": vocabulary["tags"][0]["facet"]})
    (data / "vocabulary.json").write_text(json.dumps(vocabulary))
    recipe = write_recipe(
        tmp_path,
        init=str(first),
        replay={"data": str(sample_folder()), "share": 0.5},
        rows_learning_rate=1e-12,
        trainer={"learning_rate": 1e-12},
    )
    second = tmp_path / "second"
    assert run(recipe, "--data", data, "--out", second) == 0
    metrics = json.loads((second / "metrics.json").read_text())
    assert metrics["num_train"] == 48
    assert metrics["tags_new_in_this_run"] == ["brand new"]
    assert "brand new" in metrics["tags_without_a_training_product"]
    assert set(metrics["continued"]["before"]) == {"old_test", "new_validation"}
    before, after = (load_file(folder / "adapter" / "tag_rows.safetensors")["input"] for folder in (first, second))
    assert torch.allclose(before[:3], after[:3], atol=1e-6)
    assert torch.allclose(before[3:], after[4:], atol=1e-6)
    old, new = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (first, second))
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path, capsys):
    first = tmp_path / "first"
    assert run(write_recipe(tmp_path), "--data", sample_folder(), "--out", first) == 0
    recipe = write_recipe(tmp_path, init=str(first), rank=4)
    assert run(recipe, "--data", sample_folder(), "--out", tmp_path / "second") == 2
    assert "has `rank: 16`, the recipe says `rank: 4`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methd": "lora"}, "did you mean `method`?"),
        ({"trainer": {"max_length": 3}}, "trainer.max_length is set by the program"),
        ({"trainer": {"learning_rat": 3}}, "did you mean `learning_rate`?"),
        ({"model": "no/such-model-here"}, "no/such-model-here"),
        ({"order": "free", "answer": "text"}, "`order: free` needs `answer: tag_tokens`"),
        ({"order": "faset"}, "`order`: Input should be 'facet', 'frequency', 'random' or 'free' (got 'faset')"),
        ({"order": ["colour", "sise"]}, "order: the vocabulary has no facet 'sise'; expected some of "),
        ({"replay": {"data": "x"}}, "`replay` belongs to `init`"),
        ({"prompt": "tag_v9"}, "tag_v9.jinja is not there"),
        ({"chat": "base"}, "has no chat template; set `chat: plain`"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, capsys, changes, expected):
    make_tiny_model(tmp_path / "base", chat=None)
    code = run(write_recipe(tmp_path, **changes), "--data", sample_folder(), "--out", tmp_path / "run")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert expected in error


def test_a_changed_recipe_is_not_resumed(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text(recipe.read_text())
    changed = write_recipe(tmp_path, rank=3)
    assert run(changed, "--data", sample_folder(), "--out", out, "--resume") == 2
    assert "`rank: 16`, the recipe says `rank: 3`" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, capsys):
    recipe = write_recipe(
        tmp_path, checkpoint_minutes=0, trainer={"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_steps": 0}
    )
    assert run(recipe, "--data", sample_folder(), "--out", tmp_path / "run") == 1
    assert "the loss is nan" in capsys.readouterr().err
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))


def _dataset(folder: Path, train: list[dict], vocabulary: list[dict]) -> Path:
    folder.mkdir()
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    return folder


def test_labels_outside_the_vocabulary_are_listed(tmp_path, capsys):
    rows = [{"id": str(n), "title": "x", "tags": ["red", "odd"]} for n in range(3)]
    data = _dataset(tmp_path / "data", rows, [{"tag": "red"}])
    assert run(write_recipe(tmp_path), "--data", data, "--out", tmp_path / "run") == 2
    assert "'odd' (6 times)" in capsys.readouterr().err


def test_an_empty_split_is_one_line(tmp_path, capsys):
    data = _dataset(tmp_path / "data", [], [{"tag": "red"}])
    assert run(write_recipe(tmp_path), "--data", data, "--out", tmp_path / "run") == 2
    assert "no rows" in capsys.readouterr().err


def test_a_product_without_tags_is_learned_as_the_empty_answer(tmp_path):
    rows = [{"id": str(n), "title": f"thing {n}", "tags": ["red"] if n % 2 else []} for n in range(8)]
    data = _dataset(tmp_path / "data", rows, [{"tag": "red"}, {"tag": "blue"}])
    assert run(write_recipe(tmp_path), "--data", data, "--out", tmp_path / "run") == 0
