"""The parts that `sft.train_bert` adds to transformers' Trainer. Imports torch and transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from hangtag.baselines.facet_decoding import decode_scores, exact_match_of, set_f1_of, tune_thresholds
from hangtag.baselines.tag_classifier import Loss, scores_of
from hangtag.vocabulary import TagVocabulary
from sft.trainer_parts import LengthGrouped, ProgressLine, SaveByTime, parameter_groups


class SetF1:
    """Returns set-F1 and exact match on validation, decoded under thresholds tuned there.

    `thresholds` are those of the last call.
    """

    def __init__(self, vocabulary: TagVocabulary, loss: Loss, gold: npt.NDArray[np.bool_]) -> None:
        self._vocabulary, self._loss, self._gold = vocabulary, loss, gold
        self.thresholds: dict[str, float] = {}

    def __call__(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        """Return the metrics of `prediction`, whose rows are in the order of `gold`."""
        scores = scores_of(prediction.predictions, self._vocabulary, self._loss)
        self.thresholds = tune_thresholds(scores, self._gold, self._vocabulary)
        chosen = decode_scores(scores, self._vocabulary, self.thresholds)
        return {"set_f1": set_f1_of(chosen, self._gold), "exact_match": exact_match_of(chosen, self._gold)}


class TagTrainer(transformers.Trainer):
    """transformers' Trainer with length-grouped batches, a learning rate of its own for the head, early stopping.

    Rows are {"input_ids": [int], "labels": bool array (tags,)}; each batch is padded to its longest row.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *,
        tokenizer: Any,
        measure: SetF1,
        head_learning_rate: float,
        checkpoint_minutes: float,
        patience: int,
        **trainer: Any,
    ) -> None:
        self._head_learning_rate = head_learning_rate

        def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
            labels = torch.from_numpy(np.stack([row["labels"] for row in rows]).astype(np.float32))
            return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}

        stopping = transformers.EarlyStoppingCallback(patience)
        super().__init__(
            data_collator=collate,
            compute_metrics=measure,
            callbacks=[ProgressLine(), SaveByTime(checkpoint_minutes), stopping],
            **trainer,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        lengths = [len(row["input_ids"]) for row in self.train_dataset]
        return LengthGrouped(lengths, self.args.train_batch_size, self.args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the optimiser that `args` name, with parameter groups for head and encoder."""
        if self.optimizer is None:
            kind, keywords = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(
                self, is_apart=lambda name: name.startswith("head."), learning_rate=self._head_learning_rate
            )
            self.optimizer = kind(groups, **keywords)
        return self.optimizer
