"""TRL's SFTTrainer with what tagging needs: the loss over what decoding allows, and validation by decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl

from hangtag.constraint import TagConstraint
from hangtag.errors import TrainingError
from hangtag.product import Product
from sft.machine import choose_attention
from sft.pairs import Pair, PairMaker
from sft.tag_rows import ROWS_FILE, TagRows
from sft.trainer_parts import LengthGrouped, ProgressLine, SaveByTime, keep_trained_in_float32, parameter_groups

IGNORED = -100


class PairBatch:
    """Turns pairs into a padded batch.

    `input_ids` and `attention_mask` have shape (rows, tokens); `labels`, of the same shape, holds at each position
    the token that is learned there (the next one), -100 where none is. For tag tokens `allowed` and `target`, of
    shape (learned positions in row-major order, tags + 1), say which columns decoding would allow there and
    how the target is spread over them; the last column is the close.
    """

    def __init__(self, maker: PairMaker, *, rows: TagRows | None, end_token: int, is_order_free: bool) -> None:
        """Prepare batches of `maker`'s pairs; `end_token` is learned after an answer in ordinary tokens."""
        self._constraint: TagConstraint = maker.constraint
        self._limits = maker.settings.limits
        self._prefix = self._constraint.forced(self._constraint.start(limits=self._limits))
        self._end_token = end_token
        self._is_order_free = is_order_free
        self._columns = None if rows is None else rows.row_of.tolist()
        self._num_columns = 0 if rows is None else rows.num_columns

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
        """Return the batch."""
        sequences, labels = [], []
        for pair in pairs:
            ids = pair.prompt + pair.answer
            # The prefix is given at decoding, so nothing is learned from it.
            learned = pair.answer[len(self._prefix) :]
            if self._columns is None:
                learned = [*learned, self._end_token]
            else:
                ids = ids[:-1]
            sequences.append(ids)
            labels.append([IGNORED] * (len(ids) - len(learned)) + learned)
        longest = max(map(len, sequences))
        batch = {
            "input_ids": _padded(sequences, longest, self._end_token),
            "attention_mask": _padded([[1] * len(ids) for ids in sequences], longest, 0),
            "labels": _padded(labels, longest, IGNORED),
        }
        if self._columns is not None:
            steps = [step for pair in pairs for step in self._steps(pair)]
            allowed, target = (torch.from_numpy(np.stack(parts)) for parts in zip(*steps, strict=True))
            batch |= {"allowed": allowed, "target": target}
        return batch

    def _steps(self, pair: Pair) -> Iterator[tuple[Any, Any]]:
        """Yield (allowed, target) for each learned token of an answer."""
        assert self._columns is not None
        state = self._constraint.start(limits=self._limits)
        answer, num_given = pair.answer, len(self._prefix)
        left = [self._columns[token] for token in answer[num_given:]]
        for at, token in enumerate(answer):
            if at >= num_given:
                allowed = np.zeros(self._num_columns, np.bool_)
                allowed[[self._columns[other] for other in self._constraint.allowed(state).tolist()]] = True
                target = np.zeros(self._num_columns, np.float32)
                # The close comes last: before it, any tag that is left is as right as the next one.
                rest = left[at - num_given : -1] if self._is_order_free else []
                target[rest or [self._columns[token]]] = 1.0 / max(len(rest), 1)
                # A label that lacks what its facet must hold closes where decoding could not.
                yield allowed | (target > 0), target
            if at + 1 < len(answer):
                self._constraint.advance(state, token)


class TaggingTrainer(trl.SFTTrainer):
    """TRL's SFTTrainer on instruction pairs.

    Tag tokens: `rows` hold their embeddings, and the loss at each step is the cross-entropy over the tags that
    decoding would allow there plus the close. Ordinary tokens (`rows` None): cross-entropy over all tokens. Either
    way logits are computed at learned positions only. `validate` returns the validation metrics, measured by
    decoding with the model as it stands.
    """

    control: transformers.TrainerControl
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *,
        products: Sequence[Product],
        maker: PairMaker,
        rows: TagRows | None,
        is_order_free: bool,
        rows_learning_rate: float,
        validate: Callable[[], dict[str, float]],
        checkpoint_minutes: float,
        patience: int | None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        **trainer: Any,
    ) -> None:
        self._rows, self._rows_learning_rate, self._validate = rows, rows_learning_rate, validate
        self._pairs = _EpochPairs(products, maker)
        self.lengths = self._pairs.lengths()
        end_token = trainer["processing_class"].eos_token_id
        batch = PairBatch(maker, rows=rows, end_token=end_token, is_order_free=is_order_free)
        dataset = self._pairs.dataset()
        super().__init__(
            train_dataset=dataset,
            # Trainer asks for one before it validates; `evaluate` here reads none.
            eval_dataset=dataset,
            data_collator=lambda read: batch([row["pair"] for row in read]),
            callbacks=[
                ProgressLine(),
                SaveByTime(checkpoint_minutes),
                _NextEpoch(self._pairs),
                *([] if patience is None else [transformers.EarlyStoppingCallback(patience)]),
                *callbacks,
            ],
            **trainer,
        )
        keep_trained_in_float32(self.model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss: the sum over learned tokens, divided by their number in all accumulated batches.

        Raises:
            TrainingError: the loss is not finite.
        """
        core = self.accelerator.unwrap_model(model)
        labels, ids = inputs["labels"], inputs["input_ids"]
        choose_attention(core, ids)
        embedding = core.get_input_embeddings()
        vectors = embedding(ids) if self._rows is None else self._rows.embed(ids, embedding)
        with _hidden_states_as_logits(core) as head:
            hidden = model(inputs_embeds=vectors, attention_mask=inputs["attention_mask"], use_cache=False).logits
        # Prefix-tuning's virtual tokens may stand before the sequence.
        hidden = hidden[:, -labels.shape[1] :][labels != IGNORED]
        if self._rows is None:
            total = torch.nn.functional.cross_entropy(
                head(hidden).float(), labels[labels != IGNORED], reduction="sum"
            )
        else:
            with torch.autocast(hidden.device.type, enabled=False):
                logits = self._rows.logits(hidden).masked_fill(~inputs["allowed"], -torch.inf)
                logs = logits.log_softmax(-1).masked_fill(~inputs["allowed"], 0.0)
                total = -(inputs["target"] * logs).sum()
        number = len(hidden) if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(number, device=total.device).clamp(min=1)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step}; the last good checkpoint is kept. "
                "Lower trainer.learning_rate or rows_learning_rate, or raise trainer.warmup_steps"
            )
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the validation metrics, measured by decoding; see the class."""
        metrics = {f"eval_{name}": value for name, value in self.measure(now=self._validate)["now"].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, **validations: Callable[[], dict[str, float]]) -> dict[str, dict[str, float]]:
        """Return each validation's metrics, measured by decoding with the model as it stands."""
        self.sync_rows()
        self.model.eval()
        with self.compute_loss_context_manager():
            return {name: validate() for name, validate in validations.items()}

    def sync_rows(self) -> None:
        """Copy the tag rows into the model's embeddings, which `generate` reads."""
        if self._rows is not None:
            self._rows.write_into(self.accelerator.unwrap_model(self.model))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the optimiser that `args` name, with a learning rate of their own for the tag rows."""
        if self.optimizer is None:
            kind, keywords = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(
                self, is_apart=lambda name: name.startswith("tag_rows."), learning_rate=self._rows_learning_rate
            )
            self.optimizer = kind(groups, **keywords)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        return LengthGrouped(self.lengths, self.args.train_batch_size, self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("tag_rows.")}
        # PEFT would add the whole embedding because it was resized; the rows that are new stand in their own file.
        options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(folder, state_dict=weights, **options)
        if self._rows is not None:
            self._rows.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_rows(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_rows(self.state.best_model_checkpoint)

    def _load_rows(self, checkpoint: str | None) -> None:
        if self._rows is not None and checkpoint and (Path(checkpoint) / ROWS_FILE).is_file():
            self._rows.load(Path(checkpoint))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing: a run directory has its manifest."""


class _EpochPairs:
    """The training products as pairs, made when they are read, for the epoch that is being trained."""

    def __init__(self, products: Sequence[Product], maker: PairMaker) -> None:
        self._products, self._maker, self.epoch = products, maker, 0

    def lengths(self) -> list[int]:
        """Return the tokens of each product's pair, without augmentation."""
        return [len(pair.prompt) + len(pair.answer) for pair in self._maker.pairs(self._products)]

    def dataset(self) -> Any:
        """Return a `datasets.Dataset` whose rows are {"pair": Pair}."""
        import datasets

        rows = datasets.Dataset.from_dict({"row": range(len(self._products))})
        return rows.with_transform(self._read)

    def _read(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        pairs = self._maker.pairs([self._products[row] for row in batch["row"]], epoch=self.epoch)
        return {"pair": pairs}


class _NextEpoch(transformers.TrainerCallback):
    """Tells the pairs which epoch it is."""

    def __init__(self, pairs: _EpochPairs) -> None:
        self._pairs = pairs

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch; also where a run goes on in the middle of one."""
        self._pairs.epoch = int(state.epoch or 0)


class AllocateRanks(transformers.TrainerCallback):
    """Lets AdaLoRA move its rank budget after each step, which it does not do by itself."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Move the budget, while the gradients are there."""
        model.base_model.update_and_allocate(state.global_step)


@contextlib.contextmanager
def _hidden_states_as_logits(model: Any) -> Iterator[torch.nn.Module]:
    """Let the model's head pass hidden states through, so that logits are computed where they are needed."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    base.set_output_embeddings(torch.nn.Identity())
    try:
        yield head
    finally:
        base.set_output_embeddings(head)


def _padded(rows: Sequence[Sequence[int]], length: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
