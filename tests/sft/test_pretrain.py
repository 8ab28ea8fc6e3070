from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from run_folder import kill_in_training
from safetensors.torch import load_file
from tiny_model import make_tiny_model

from hangtag.config import load_recipe
from hangtag.sample import sample_folder
from sft.pretrain import PretrainRecipe, documents, main

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
TEXTS = sample_folder() / "train.jsonl"


def write_recipe(folder: Path, **changes) -> Path:
    recipe = {
        "model": str(make_tiny_model(folder / "base")),
        "stretch": 64,
        "held_out": 20,
        "trainer": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "bf16": False, "learning_rate": 0.01},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def test_the_recipe_loads():
    load_recipe(ROOT / "sft" / "recipes" / "smollm2_pretrain.yaml", PretrainRecipe)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_reading_lowers_perplexity_and_leaves_a_base_model(tmp_path, capsys, method):
    out = tmp_path / "run"
    assert main([str(write_recipe(tmp_path, method=method)), "--texts", str(TEXTS), "--out", str(out)]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics["perplexity_after"] < metrics["perplexity_before"]
    model = transformers.AutoModelForCausalLM.from_pretrained(out / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())
    transformers.AutoTokenizer.from_pretrained(out / "model")
    assert (out / "manifest.json").is_file()


def test_a_killed_reading_goes_on_to_the_same_weights(tmp_path):
    recipe = write_recipe(tmp_path, checkpoint_minutes=0, dropout=0.1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([str(recipe), "--texts", str(TEXTS), "--out", str(whole)]) == 0
    num_steps = json.loads((whole / "metrics.json").read_bytes())["steps"]
    command = [sys.executable, "-m", "sft.pretrain", str(recipe), "--texts", str(TEXTS), "--out", str(killed)]
    at = random.Random().randint(2, num_steps // 2)  # older checkpoints are removed meanwhile
    when = kill_in_training(command, killed, at=at, steps=num_steps)
    assert main(["--texts", str(TEXTS), "--out", str(killed), "--resume"]) == 0
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, killed))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.allclose(one[key], other[key], atol=1e-4), (key, when)
    metrics = [json.loads((folder / "metrics.json").read_bytes()) for folder in (whole, killed)]
    assert metrics[0] == pytest.approx(metrics[1], abs=0.01)


def test_general_text_is_mixed_in_and_held_out_texts_are_not_read(tmp_path):
    general = tmp_path / "general.txt"
    general.write_text("".join(f"general {n}\n" for n in range(50)))
    recipe = PretrainRecipe(model="x", held_out=20, general=str(general), general_share=0.2, limit=80)
    read, held_out = documents(recipe, TEXTS, seed=1)
    assert len(held_out) == 20
    assert sum(text.startswith("general") for text in read) == 20
    assert len(read) == 100
    assert not set(read) & set(held_out)


def test_too_few_products_are_one_line(tmp_path, capsys):
    recipe = write_recipe(tmp_path, held_out=5000)
    assert main([str(recipe), "--texts", str(TEXTS), "--out", str(tmp_path / "run")]) == 2
    assert "none is left to read" in capsys.readouterr().err
