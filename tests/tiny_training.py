"""A training that takes seconds: a tiny base and a recipe of a few steps."""

from __future__ import annotations

from pathlib import Path

import yaml
from tiny_model import make_tiny_model

from sft.train import main

TINY = {
    "limit": 24,
    "validate_on": 6,
    "validations_per_epoch": 2,
    "calibrate_on": 10,
    "trainer": {"num_train_epochs": 1, "per_device_train_batch_size": 4, "bf16": False, "logging_steps": 1},
}


def write_recipe(folder: Path, **changes) -> Path:
    base = folder / "base"
    if not base.exists():
        make_tiny_model(base)
    recipe = {"model": str(base), "method": "lora", **TINY, **changes}
    recipe["trainer"] = TINY["trainer"] | changes.get("trainer", {})
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])
