"""How a training program begins: a new run directory, or one that is gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hangtag.config import Recipe, load_recipe
from hangtag.durable import write_durably
from hangtag.errors import DataError, MissingExtra, RecipeError
from hangtag.manifest import RunFiles
from sft.recipe import TrainingRecipe

R = TypeVar("R", bound=TrainingRecipe)

CHECKPOINTS = "checkpoints"
CHECK_FILE = "check.jsonl"
"""Validation products that an export is checked with."""
TAGGINGS_FILE = "validation_taggings.jsonl"
"""The finished model's taggings of validation products, before calibration."""


def open_run(out: Path, recipe: str | None, kind: type[R], *, resume: bool) -> R:
    """Return the recipe of a run that begins, or goes on, in `out`.

    A resumed run has its recipe in its folder; where one is given too, it must say the same.

    Raises:
        DataError: a completed run stands in `out`, other files do, or there is nothing to resume.
        RecipeError: the recipe is refused, or differs from that of the run that is resumed.
    """
    if RunFiles(out).manifest.exists():
        raise DataError(f"{out}: a completed run stands there; choose another --out or remove it")
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise DataError(f"{out}: not empty; continue it with --resume or choose another --out")
        return load_recipe(recipe, kind)
    file = RunFiles(out).recipe
    if not file.is_file():
        raise DataError(f"{out}: nothing to resume (no {file.name}); start it without --resume")
    begun = load_recipe(file, kind)
    if recipe:
        _check_same(begun, load_recipe(recipe, kind), out)
    return begun


def save_recipe(out: Path, recipe: Recipe) -> None:
    """Write the resolved recipe into the run directory, which is made."""
    text = yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
    write_durably(RunFiles(out).recipe, [text.encode()])


def last_checkpoint(out: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, None where it has none.

    A kill may have come while one was being written. The trainer writes trainer_state.json last, so a checkpoint
    in which that cannot be read is removed: no later reader takes it for whole.
    """
    found = {int(path.name.rpartition("-")[2]): path for path in (out / CHECKPOINTS).glob("checkpoint-*")}
    for _, checkpoint in sorted(found.items(), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((checkpoint / "trainer_state.json").read_bytes())
            return checkpoint
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def check_trainer_options(options: dict[str, Any], config: str, ours: frozenset[str]) -> None:
    """Return if every key is an option of the trainer's configuration class, and none that the program sets.

    `config` is "module.Class"; it is imported only where there are options.

    Raises:
        RecipeError: a key is refused.
        MissingExtra: the class's package is not installed.
    """
    refused = sorted(ours & options.keys())
    if refused:
        raise RecipeError(f"trainer.{refused[0]} is set by the program; remove it from the recipe")
    if not options:
        return
    module, _, name = config.rpartition(".")
    try:
        found = getattr(__import__(module, fromlist=[name]), name)
    except ImportError:
        raise MissingExtra(module, "train") from None
    known = [field.name for field in dataclasses.fields(found)]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"see the {name} of {module}"
            raise RecipeError(f"unknown key `trainer.{key}`; {hint}")


def _check_same(begun: Recipe, given: Recipe, out: Path) -> None:
    before, after = begun.model_dump(), given.model_dump()
    # The resolved recipe may name trainer options that a probe added.
    before["trainer"] = {key: value for key, value in before["trainer"].items() if key in after["trainer"]}
    for key, value in after.items():
        if before[key] != value:
            raise RecipeError(
                f"{out}: was begun with `{key}: {before[key]}`, the recipe says `{key}: {value}`; resume without "
                "a recipe, or start a new run in another --out"
            )
