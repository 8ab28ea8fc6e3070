"""The BERT baseline: an encoder with a multi-label head, from a run directory of `sft.train_bert`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag.baselines.facet_decoding import to_taggings
from hangtag.errors import DataError, MissingExtra, ModelError
from hangtag.manifest import load_run
from hangtag.product import Product
from hangtag.tagging import Tagging


class BertTagger:
    """Tags with a trained encoder; confidence is the score of its head.

    `device` is a torch device; without it the first GPU, or the CPU where there is none.
    """

    name = "bert"

    def __init__(self, run: str | Path, *, device: str | None = None, batch_size: int = 64) -> None:
        """Load model, vocabulary and thresholds of a completed run.

        Raises:
            DataError: no completed run stands there, or it is of another kind.
            ModelError: the weights do not load.
            MissingExtra: torch or transformers is not installed.
        """
        run = Path(run)
        manifest, self.vocabulary = load_run(run)
        if manifest.kind != "bert":
            raise DataError(f"{run}: a run of kind {manifest.kind!r}; expected one that sft.train_bert wrote")
        try:
            import torch

            from hangtag.baselines.tag_classifier import TagClassifier
        except ImportError as error:
            raise MissingExtra(error.name or "transformers", "train") from None
        self._loss = manifest.details["loss"]
        self._max_length = manifest.details["max_length"]
        self._batch_size = batch_size
        try:
            self._thresholds: dict[str, float] = json.loads((run / "thresholds.json").read_bytes())
            model, self._tokenizer = TagClassifier.load(run / "model", self.vocabulary, loss=self._loss)
        except (OSError, ValueError, RuntimeError) as error:
            line = str(error).splitlines()[0]
            raise ModelError(f"{run}: the trained model does not load ({line}); train the run again") from None
        self._model: Any = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product. Cost: one forward pass; many products at once pad less."""
        from hangtag.baselines.tag_classifier import predict_logits, scores_of

        logits = predict_logits(
            self._model,
            self._tokenizer,
            [product.text for product in products],
            max_length=self._max_length,
            batch_size=self._batch_size,
        )
        scores = scores_of(logits, self.vocabulary, self._loss)
        return to_taggings(products, scores, self.vocabulary, self._thresholds, model=self.name)
