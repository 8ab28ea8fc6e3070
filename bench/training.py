"""What the trainer costs: that of `sft.train` beside a bare loop over the same batches, side by side in one run.

    python -m bench training
    python -m bench training --data ../shared/data/hm --products 256 --out eval/results/bench_train.json

Contestants: answers in tag tokens and in ordinary tokens, each with an adapter over a base in NF4 and as it is;
tag tokens also with all weights. A bare loop is forward with the same attention, loss at learned positions,
backward, AdamW; it has no callbacks, schedule or logging. Over a base as it is the trainer also runs with compiled
layers, where there is a C++ compiler. They take turns, round by round. A table goes to stderr; the last line of
stdout is one JSON document with provenance.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.errors import RecipeError
from hangtag.loading import DEFAULT_MODEL
from hangtag.manifest import provenance, write_json
from hangtag.sample import sample_folder
from sft.machine import can_compile, choose_attention, compile_layers, is_bfloat16_faster, keep_freed_memory
from sft.recipe import TRAINER_DEFAULTS, TrainRecipe

_KINDS = [
    ("tag_tokens", "lora"),
    ("tag_tokens", "qlora"),
    ("tag_tokens", "full"),
    ("text", "lora"),
    ("text", "qlora"),
]
_LEARNING_RATES = {"full": 2e-4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--data", type=Path, default=sample_folder(), metavar="DIR", help="default: the sample")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="base model (default: %(default)s)")
    parser.add_argument("--products", type=int, default=64, metavar="N", help="a round (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="products (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")


def run(options: argparse.Namespace) -> int:
    """Run all contestants, print table and document, return the exit code."""
    if options.products < 2 * options.batch_size or options.rounds < 1:
        raise RecipeError("--products needs at least two batches (the first is not timed), --rounds at least 1")
    keep_freed_memory()
    bf16 = is_bfloat16_faster()
    rates: dict[tuple[str, str], dict[str, list[float]]] = {
        kind: {who: [] for who in _runners(kind)} for kind in _KINDS
    }
    lengths: dict[tuple[str, str], float] = {}
    turns = [(kind, who) for _ in range(options.rounds) for kind in _KINDS for who in _runners(kind)]
    for kind, who in program.progress("turns", "turn", iterable=turns):
        with contextlib.closing(_Contest(options, *kind, bf16=bf16, compiled=who == "compiled")) as contest:
            rates[kind][who].append(contest.bare() if who == "bare" else contest.trainer())
            lengths[kind] = contest.mean_length
    contestants = {}
    for kind, found in rates.items():
        medians = {who: statistics.median(values) for who, values in found.items()}
        contestants[", ".join(kind)] = {
            "samples_per_s": {who: round(median, 2) for who, median in medians.items()},
            "to_bare": {
                who: round(median / medians["bare"], 3) for who, median in medians.items() if who != "bare"
            },
            "mean_tokens": round(lengths[kind], 1),
            "all": {who: [round(rate, 2) for rate in values] for who, values in found.items()},
        }
    document = {
        "benchmark": "train",
        "settings": {
            "data": Path(options.data).name,
            "model": options.model,
            "products": options.products,
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "bf16": bf16,
        },
        "contestants": contestants,
        "provenance": provenance(),
    }
    _print(contestants)
    if options.out:
        write_json(options.out, document)
    print(json.dumps(document))
    return 0


def _runners(kind: tuple[str, str]) -> list[str]:
    return ["bare", "trainer", *(["compiled"] if kind[1] != "qlora" and can_compile() else [])]


class _Contest:
    """One model with what is trained of it and its batches, made anew for each turn."""

    def __init__(
        self, options: argparse.Namespace, answer: str, method: str, *, bf16: bool, compiled: bool
    ) -> None:
        from sft.labelled import draw, load_labelled_splits, tag_counts
        from sft.language_model import load_tokenizer, trainable_model
        from sft.pairs import PairMaker, TagOrder, answer_settings

        self.recipe = TrainRecipe(
            model=options.model, answer=answer, method=method, dropout=0.0, trainer={"bf16": bf16}
        )
        self.bf16, self.batch_size = bf16, options.batch_size
        self.learning_rate = _LEARNING_RATES.get(method, TRAINER_DEFAULTS["learning_rate"])
        dataset = load_labelled_splits(options.data)
        self.products = draw(dataset.train, options.products, 17)
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        self.tokenizer, num_rows = load_tokenizer(self.recipe, dataset.vocabulary, folder)
        self.maker = PairMaker(
            self.tokenizer,
            dataset.vocabulary,
            answer_settings(self.recipe, self.products, dataset.vocabulary, self.tokenizer),
            template=self.recipe.template,
            order=TagOrder("facet", dataset.vocabulary, tag_counts(self.products)),
            augmentation=self.recipe.augment,
            seed=17,
        )
        self.model, self.rows, _ = trainable_model(
            self.recipe, dataset.vocabulary, self.tokenizer, num_rows, num_steps=100, begun=None
        )
        if compiled:
            compile_layers(self.model)
        pairs = self.maker.pairs(self.products)
        self.mean_length = statistics.mean(len(pair.prompt) + len(pair.answer) for pair in pairs)

    def close(self) -> None:
        """Remove what was written on the way."""
        self._scratch.cleanup()

    def bare(self) -> float:
        """Return samples/s of a bare loop, the first step not counted."""
        import torch

        from sft.tagging_trainer import IGNORED, PairBatch
        from sft.trainer_parts import LengthGrouped

        make = PairBatch(self.maker, rows=self.rows, end_token=self.tokenizer.eos_token_id, is_order_free=False)
        pairs = self.maker.pairs(self.products)
        order = list(LengthGrouped([len(p.prompt) + len(p.answer) for p in pairs], self.batch_size, 17))
        core = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate)
        self.model.train()
        seconds = []
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            began = time.perf_counter()
            batch = make([pairs[at] for at in order[start : start + self.batch_size]])
            learned = batch["labels"] != IGNORED
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
                embedding = core.get_input_embeddings()
                ids = batch["input_ids"].to(self.model.device)
                choose_attention(core, ids)
                vectors = embedding(ids) if self.rows is None else self.rows.embed(ids, embedding)
                hidden = core.model(
                    inputs_embeds=vectors, attention_mask=batch["attention_mask"]
                ).last_hidden_state
                hidden = hidden[learned]
                if self.rows is None:
                    logits, targets = core.lm_head(hidden).float(), batch["labels"][learned]
                else:
                    logits = self.rows.logits(hidden).masked_fill(~batch["allowed"], -1e9)
                    targets = batch["target"]
            torch.nn.functional.cross_entropy(logits, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
        return float(self.batch_size * (len(seconds) - 1) / sum(seconds[1:]))

    def trainer(self) -> float:
        """Return samples/s of `sft.train`'s trainer, the first step not counted."""
        import transformers
        import trl

        from sft.tagging_trainer import TaggingTrainer

        class Clock(transformers.TrainerCallback):
            ends: list[float] = []  # noqa: RUF012  # one clock a class

            def on_step_end(self, *_: Any, **__: Any) -> None:
                self.ends.append(time.perf_counter())

        Clock.ends = []
        trainer = TaggingTrainer(
            model=self.model,
            args=trl.SFTConfig(
                output_dir=self._scratch.name,
                use_cpu=self.model.device.type == "cpu",
                bf16=self.bf16,
                per_device_train_batch_size=self.batch_size,
                num_train_epochs=1,
                learning_rate=self.learning_rate,
                gradient_checkpointing=False,
                disable_tqdm=True,
                logging_steps=1000,
                report_to="none",
                save_strategy="no",
                eval_strategy="no",
                dataloader_drop_last=True,
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                completion_only_loss=False,
                seed=17,
            ),
            processing_class=self.tokenizer,
            products=self.products,
            maker=self.maker,
            rows=self.rows,
            is_order_free=False,
            rows_learning_rate=3e-3,
            validate=dict,
            checkpoint_minutes=1e9,
            patience=None,
            callbacks=[Clock()],
        )
        trainer.train()
        return float(self.batch_size * (len(Clock.ends) - 1) / (Clock.ends[-1] - Clock.ends[0]))


def _print(contestants: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="samples/s, median")
    for column in ("", "bare loop", "trainer", "trainer / bare", "compiled", "compiled / bare", "tokens a sample"):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in contestants.items():
        samples, to_bare = figures["samples_per_s"], figures["to_bare"]
        cells = [f"{samples['bare']:.2f}"]
        for who in ("trainer", "compiled"):
            cells += [f"{samples[who]:.2f}", f"{to_bare[who]:.2f}"] if who in samples else ["", ""]
        table.add_row(name, *cells, f"{figures['mean_tokens']:.0f}")
    Console(stderr=True, width=100).print(table)
