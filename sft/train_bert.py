"""Train the BERT baseline: an encoder with a multi-label head.

    python -m sft.train_bert --data ../shared/data/hm --out runs/bert-hm sft/recipes/bert_minilm.yaml
    python -m sft.train_bert --data ../shared/data/hm --out runs/bert-hm --resume

Output contract: the run directory holds recipe.yaml, vocabulary.json (where the data's names no limits: with
those that the training products keep), model/, thresholds.json, metrics.json and, written last, manifest.json.
Progress goes to stderr; the last line of stdout is one JSON object with the validation metrics. `--resume`
continues a run that was stopped in any way from its last checkpoint, under the recipe in its folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hangtag.errors import MissingExtra
from hangtag.manifest import RunFiles
from sft.machine import keep_freed_memory, surroundings, with_number_format
from sft.program import TrainingProgram
from sft.recipe import TrainingRecipe
from sft.run_directory import (
    CHECKPOINTS,
    last_checkpoint,
    save_recipe,
)

_TRAINER_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "num_train_epochs": 6,
    "learning_rate": 4e-4,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.01,
    "warmup_steps": 0.06,
    "max_grad_norm": 5.0,
    "logging_steps": 50,
    "report_to": "none",
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
    "seed": 17,
}
_OURS = frozenset(
    {
        "output_dir",
        "eval_strategy",
        "eval_steps",
        "save_strategy",
        "save_steps",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "remove_unused_columns",
        "train_sampling_strategy",
    }
)


class BertRecipe(TrainingRecipe):
    """Settings of one training run."""

    model: str = "minilm-l6"
    """A packaged model, a folder in Hugging Face form, or a hub id; any encoder that AutoModel loads."""
    max_length: int = Field(default=128, ge=4)
    """Tokens of a product's text; the rest is cut."""
    loss: Literal["bce", "facet_softmax"] = "bce"
    """How the head is trained, see `TagClassifier`."""
    head_learning_rate: float = Field(default=4e-3, gt=0)
    """Peak learning rate of the head, whose weights start from nothing; the encoder has `learning_rate`."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pooled vector's components that are dropped in training."""
    evaluations_per_epoch: int = Field(default=2, ge=1)
    """How often set-F1 on validation is measured in one pass over the training data."""
    patience: int = Field(default=4, ge=1)
    """Training stops after this many evaluations in a row without a better set-F1."""
    checkpoint_minutes: float = Field(default=5.0, ge=0)


def train(recipe: BertRecipe, data: Path, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run or resume the training in `out` and return the validation metrics."""
    from sft.labelled import draw, load_both_splits

    dataset = load_both_splits(data)
    keep_freed_memory()
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "train") from None
    from hangtag.baselines.facet_decoding import tag_matrix
    from hangtag.baselines.tag_classifier import TagClassifier
    from hangtag.manifest import RunManifest, write_json
    from hangtag.models import resolve_model
    from sft.bert_trainer import SetF1, TagTrainer

    recipe = with_number_format(recipe)
    seed = (_TRAINER_DEFAULTS | recipe.trainer)["seed"]
    transformers.set_seed(seed)
    products = draw(dataset.train, recipe.limit, seed)
    vocabulary = dataset.vocabulary.with_some_limits(product.tags or () for product in products)
    save_recipe(out, recipe)
    vocabulary.save(RunFiles(out).vocabulary)

    source = resolve_model(recipe.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    encoder = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
    model = TagClassifier(encoder, vocabulary, loss=recipe.loss, dropout=recipe.dropout)
    gold = tag_matrix((product.tags or () for product in products), vocabulary)
    model.start_at_frequencies(gold, vocabulary)
    validation_gold = tag_matrix((product.tags or () for product in dataset.validation), vocabulary)
    measure = SetF1(vocabulary, recipe.loss, validation_gold)
    trainer = TagTrainer(
        model=model,
        args=_arguments(recipe, len(products), out),
        train_dataset=_rows(products, gold, tokenizer, recipe.max_length),
        eval_dataset=_rows(dataset.validation, validation_gold, tokenizer, recipe.max_length),
        tokenizer=tokenizer,
        measure=measure,
        head_learning_rate=recipe.head_learning_rate,
        checkpoint_minutes=recipe.checkpoint_minutes,
        patience=recipe.patience,
    )
    began = time.monotonic()
    checkpoint = last_checkpoint(out) if resume else None
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    found = trainer.evaluate()
    metrics = {
        "validation": {"set_f1": found["eval_set_f1"], "exact_match": found["eval_exact_match"]},
        "num_train": len(products),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "epochs": round(trainer.state.epoch or 0.0, 2),
        "seconds_since_start_or_resume": round(time.monotonic() - began, 1),
        "history": [entry for entry in trainer.state.log_history if "eval_set_f1" in entry],
    }
    model.save(out / "model", tokenizer)
    write_json(out / "thresholds.json", measure.thresholds)
    write_json(RunFiles(out).metrics, metrics)
    RunManifest(
        program="sft.train_bert",
        kind="bert",
        base_model=recipe.model,
        vocabulary=vocabulary.fingerprint,
        data={"folder": dataset.folder.name, "digest": dataset.digest, "num_train": len(products)},
        seed=trainer.args.seed,
        metrics=metrics["validation"],
        details={"loss": recipe.loss, "max_length": recipe.max_length},
    ).write(out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return metrics


def _rows(products: Any, gold: Any, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    texts = [product.text for product in products]
    ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return [{"input_ids": row, "labels": labels} for row, labels in zip(ids, gold, strict=True)]


def _arguments(recipe: BertRecipe, num_train: int, out: Path) -> Any:
    import transformers

    settings = _TRAINER_DEFAULTS | recipe.trainer
    steps = num_train / settings["per_device_train_batch_size"] / settings.get("gradient_accumulation_steps", 1)
    every = max(1, round(steps / recipe.evaluations_per_epoch))
    return transformers.TrainingArguments(
        **surroundings() | settings,
        output_dir=str(out / CHECKPOINTS),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="best",
        load_best_model_at_end=True,
        metric_for_best_model="set_f1",
        greater_is_better=True,
        remove_unused_columns=False,
    )


main = TrainingProgram(
    name="sft.train_bert",
    description=__doc__,
    recipe=BertRecipe,
    trainer_options="transformers.TrainingArguments",
    set_here=_OURS,
    train=train,
    when_out_of_memory="max_length or trainer.per_device_train_batch_size",
).main


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
