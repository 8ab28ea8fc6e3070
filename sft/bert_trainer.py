"""The parts that `sft.train_bert` adds to transformers' Trainer. Imports torch and transformers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from hangtag.encoders.tag_classifier import Loss, scores_of
from hangtag.facet_decoding import decode_scores, exact_match_of, set_f1_of, tune_thresholds
from hangtag.vocabulary import TagVocabulary

# Batches are cut from stretches of this many batches sorted by length: little padding, yet well mixed.
_STRETCH = 50


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


class LengthGrouped(torch.utils.data.Sampler):
    """An order of the rows, new each epoch, in which the rows of a batch have about the same length.

    It depends on seed and epoch alone. transformers' own sampler draws from the global generator, so that a
    resumed run would see another order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next; the Trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        order = random.permutation(len(self._lengths))
        size = self._batch_size
        batches = []
        for start in range(0, len(order), _STRETCH * size):
            part = sorted(order[start : start + _STRETCH * size].tolist(), key=self._lengths.__getitem__)
            batches += [part[at : at + size] for at in range(0, len(part), size)]
        # The short batch comes last: elsewhere it would shift all that follow.
        full = [batch for batch in batches if len(batch) == size]
        for at in random.permutation(len(full)):
            yield from full[at]
        for batch in batches:
            if len(batch) < size:
                yield from batch


class ProgressLine(transformers.TrainerCallback):
    """Writes to stderr where the run stands and how long it will take, where no progress bar is shown."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write one line."""
        done = state.global_step - self._first
        if args.disable_tqdm and done:
            pace = (time.monotonic() - self._began) / done
            speed = args.train_batch_size * args.gradient_accumulation_steps / pace
            print(
                f"step {state.global_step}/{state.max_steps}, {speed:.0f} products/s, "
                f"{pace * (state.max_steps - state.global_step) / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )


class SaveByTime(transformers.TrainerCallback):
    """Asks for a checkpoint every `minutes`, whatever a step costs on this machine."""

    def __init__(self, minutes: float) -> None:
        self._minutes, self._last = minutes, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint if it is time."""
        if time.monotonic() - self._last >= 60 * self._minutes:
            control.should_save = True
            self._last = time.monotonic()


class TagTrainer(transformers.Trainer):
    """transformers' Trainer with length-grouped batches, a learning rate of its own for the head, early stopping.

    Rows are {"input_ids": [int], "labels": bool array (tags,)}; each batch is padded to its longest row.
    """

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
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                groups.setdefault((name.startswith("head."), name in decayed), []).append(parameter)
            kind, keywords = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "lr": self._head_learning_rate if in_head else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (in_head, is_decayed), parameters in groups.items()
                ],
                **keywords,
            )
        return self.optimizer
