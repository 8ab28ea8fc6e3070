"""The baselines of a sweep: what BERT and the linear tagger reach from as many products."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from hangtag.config import Recipe
from hangtag.product import Product
from hangtag.tagging import Tagger
from sft.run_directory import TAGGINGS_FILE


class LinearRecipe(Recipe):
    """A linear tagger's settings in a sweep."""

    limit: int | None = Field(default=None, ge=1)
    """Train on that many training products only, the same ones that `sft.train` draws."""
    seed: int = 17
    """Of the draw."""


def fit_linear(recipe: dict[str, Any], data: Path, run: Path, products: Sequence[Product]) -> None:
    """Fit the linear tagger and leave its taggings of `products`, and metrics.json, in `run`."""
    from hangtag.baselines.linear import LinearTagger
    from hangtag.manifest import RunFiles, write_json
    from sft.labelled import draw, load_labelled_splits

    settings = LinearRecipe(**recipe)
    dataset = load_labelled_splits(data)
    train = draw(dataset.train, settings.limit, settings.seed)
    write_taggings(LinearTagger.fit(train, dataset.validation, dataset.vocabulary), run, products)
    write_json(RunFiles(run).metrics, {"num_train": len(train)})


def tag_with_bert(run: Path, products: Sequence[Product]) -> None:
    """Leave the taggings of `products` by a run of `sft.train_bert` in its directory."""
    from hangtag.baselines.bert import BertTagger

    write_taggings(BertTagger(run), run, products)


def write_taggings(tagger: Tagger, run: Path, products: Sequence[Product]) -> None:
    """Write the tagger's taggings of `products` into the run directory, whole or not at all."""
    run.mkdir(parents=True, exist_ok=True)
    partial = run / (TAGGINGS_FILE + ".partial")
    partial.write_text("".join(tagging.to_json() + "\n" for tagging in tagger.tag(products)), encoding="utf-8")
    shutil.move(partial, run / TAGGINGS_FILE)
