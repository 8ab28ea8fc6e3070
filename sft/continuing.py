"""Going on with a finished run: its weights as the start, its products replayed. Imports torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from hangtag.catalogue.labelled import load_dataset
from hangtag.config import load_recipe
from hangtag.errors import RecipeError, VocabularyError
from hangtag.language_model.run import read_run
from hangtag.manifest import RunFiles
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary
from sft.recipe import TrainRecipe
from sft.tag_rows import ROWS_FILE, TagRows

_SAME = ("model", "answer", "method", "chat", "rank", "prefix_tokens")


def begun_run(recipe: TrainRecipe) -> Path | None:
    """Return the folder of the run that `recipe` goes on with; None where it starts from a base model.

    Raises:
        DataError: the run is not complete.
        RecipeError: it was trained in another way, so its weights do not fit.
    """
    if recipe.init is None:
        return None
    run = Path(recipe.init)
    read_run(run)
    before = load_recipe(RunFiles(run).recipe, TrainRecipe)
    for name in _SAME:
        if getattr(before, name) != getattr(recipe, name):
            raise RecipeError(
                f"init: {run} has `{name}: {getattr(before, name)}`, the recipe says `{name}: "
                f"{getattr(recipe, name)}`; they must agree"
            )
    return run


def weights_folder(run: Path, method: str) -> Path:
    """Return where a run keeps what was trained."""
    return run / "weights" if method == "full" else RunFiles(run).adapter


@torch.no_grad()
def take_rows(rows: TagRows, vocabulary: TagVocabulary, run: Path, method: str) -> list[str]:
    """Copy the rows of an earlier run into `rows`, tag by tag; return the tags that it did not have."""
    before = TagVocabulary.from_path(RunFiles(run).vocabulary)
    stored = load_file(weights_folder(run, method) / ROWS_FILE)
    # After the tags come the close and the opening.
    places = [(vocabulary.position(name), before.position(name)) for name in vocabulary.names if name in before]
    places += [(len(vocabulary) + extra, len(before) + extra) for extra in (0, 1)]
    to, origin = (torch.tensor(column) for column in zip(*places, strict=True))
    rows.input[to] = stored["input"][origin].to(rows.input.device)
    if not rows.is_tied:
        rows.output[to] = stored["output"][origin].to(rows.output.device)
    return [name for name in vocabulary.names if name not in before]


def replayed(
    recipe: TrainRecipe, products: Sequence[Product], vocabulary: TagVocabulary, seed: int
) -> list[Product]:
    """Return the training products with the recipe's share of old ones, drawn with the seed."""
    if recipe.replay is None:
        return list(products)
    old = load_dataset(recipe.replay.data, splits=("train",)).train
    _check_known(old, vocabulary, recipe.replay.data)
    number = round(len(products) * recipe.replay.share / (1 - recipe.replay.share))
    return [*products, *random.Random(seed).sample(old, min(number, len(old)))]


def old_test(recipe: TrainRecipe, vocabulary: TagVocabulary) -> tuple[Product, ...]:
    """Return the test products of the old data; none where the recipe names no old data."""
    if recipe.replay is None:
        return ()
    products = load_dataset(recipe.replay.data, splits=("test",)).test
    _check_known(products, vocabulary, recipe.replay.data)
    return products


def _check_known(products: Sequence[Product], vocabulary: TagVocabulary, data: str) -> None:
    unknown = next((t for product in products for t in product.tags or () if t not in vocabulary), None)
    if unknown is not None:
        raise VocabularyError(
            f"replay: {data} has the tag {unknown!r}, which the new vocabulary lacks; add it there, since "
            "replayed products are for keeping what is known"
        )
