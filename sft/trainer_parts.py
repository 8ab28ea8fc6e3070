"""Parts that the trainers of `sft` share: order of batches, progress, checkpoints, groups of parameters.

Imports torch and transformers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers

# Batches are cut from stretches of this many batches sorted by length: little padding, yet well mixed.
_STRETCH = 50


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

    def __init__(self) -> None:
        self._first: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write one line; none for what is measured before training begins."""
        done = 0 if self._first is None else state.global_step - self._first
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


def keep_trained_in_float32(model: torch.nn.Module) -> None:
    """Turn the parameters that are trained into float32.

    TRL casts a quantised model's adapter to bfloat16, in which AdamW's steps get lost; autocast computes in
    bfloat16 all the same.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def parameter_groups(
    trainer: transformers.Trainer, *, is_apart: Callable[[str], bool], learning_rate: float
) -> list[dict[str, Any]]:
    """Return an optimiser's groups: parameters that `is_apart` names have their own `learning_rate`, all others
    that of the trainer; weights decay, biases and norms do not. Frozen parameters are left out."""
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((is_apart(name), name in decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate if is_own else trainer.args.learning_rate,
            "weight_decay": trainer.args.weight_decay if is_decayed else 0.0,
        }
        for (is_own, is_decayed), parameters in groups.items()
    ]
