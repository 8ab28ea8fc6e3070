"""What a model under training scores when it tags validation products, as it will when it serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hangtag.baselines.facet_decoding import exact_match_of, set_f1_of, tag_matrix
from hangtag.engines.transformers_local import TransformersEngine
from hangtag.language_model.calibration import Calibration
from hangtag.language_model.run import AnswerSettings
from hangtag.loading import fine_tuned_tagger
from hangtag.metrics.calibration import Confidences, calibration_error
from hangtag.product import Product
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

_BATCH_SIZE = 32


def tag_with(
    model: Any,
    tokenizer: Any,
    products: Sequence[Product],
    vocabulary: TagVocabulary,
    settings: AnswerSettings,
    *,
    template: Path,
) -> list[Tagging]:
    """Return the taggings of a loaded model in their order, through the constraint and the serving prompt."""
    engine = TransformersEngine.around(model, tokenizer, name="in training", batch_size=_BATCH_SIZE)
    tagger = fine_tuned_tagger(engine, vocabulary, settings, template=template)
    # Products of like length stand together, so that batches hold little padding.
    order = sorted(range(len(products)), key=lambda at: len(products[at].text))
    # Prompts, single tokens and their caches would each have the layers compiled anew.
    with torch.compiler.set_stance("force_eager"):
        taggings = dict(zip(order, tagger.tag([products[at] for at in order]), strict=True))
    return [taggings[at] for at in range(len(products))]


def score(taggings: Sequence[Tagging], products: Sequence[Product], vocabulary: TagVocabulary) -> dict[str, float]:
    """Return set-F1 and exact match of `taggings`; see docs/metrics.md."""
    chosen = tag_matrix((tagging.names for tagging in taggings), vocabulary)
    gold = tag_matrix((product.tags or () for product in products), vocabulary)
    return {"set_f1": set_f1_of(chosen, gold), "exact_match": exact_match_of(chosen, gold)}


class Validation:
    """Tags a fixed set of validation products with the model as it stands; call it for the metrics."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        products: Sequence[Product],
        vocabulary: TagVocabulary,
        settings: AnswerSettings,
        *,
        template: Path,
    ) -> None:
        """Keep what tags and what is tagged."""
        self._model, self._tokenizer, self._products = model, tokenizer, products
        self._vocabulary, self._settings, self._template = vocabulary, settings, template

    def __call__(self) -> dict[str, float]:
        """Return set-F1, exact match and the seconds that it took; nothing where there are no products."""
        if not self._products:
            return {}
        began = time.monotonic()
        taggings = tag_with(
            self._model, self._tokenizer, self._products, self._vocabulary, self._settings, template=self._template
        )
        return score(taggings, self._products, self._vocabulary) | {"seconds": round(time.monotonic() - began, 1)}


def calibrate(
    taggings: Sequence[Tagging], products: Sequence[Product]
) -> tuple[Calibration | None, dict[str, Any]]:
    """Return the calibration fitted on all taggings (None where they hold no tag), and its error before and after.

    Both errors are of the second half of the products; "after" is of a calibration fitted on the first half, so
    that no tag is judged by a map that has seen it.
    """
    half = len(products) // 2
    metrics: dict[str, Any] = {"num_products": len(products), "num_tags": sum(len(t.tags) for t in taggings)}
    if any(tagging.tags for tagging in taggings[:half]) and any(tagging.tags for tagging in taggings[half:]):
        trial = Calibration.fit(_outcomes(taggings[:half], products[:half]))
        metrics["ece_before"] = _error(taggings[half:], products[half:])
        metrics["ece_after"] = _error([trial.apply(tagging) for tagging in taggings[half:]], products[half:])
    return Calibration.fit(_outcomes(taggings, products)) if metrics["num_tags"] else None, metrics


def _outcomes(taggings: Sequence[Tagging], products: Sequence[Product]) -> list[tuple[str, float, bool]]:
    return [
        (tag.facet, tag.confidence or 0.0, tag.tag in (product.tags or ()))
        for tagging, product in zip(taggings, products, strict=True)
        for tag in tagging.tags
    ]


def _error(taggings: Sequence[Tagging], products: Sequence[Product]) -> float:
    gold = [frozenset(product.tags or ()) for product in products]
    scores = [{tag.tag: tag.confidence or 0.0 for tag in tagging.tags} for tagging in taggings]
    return round(float(calibration_error(Confidences.from_scores(gold, scores))), 4)
