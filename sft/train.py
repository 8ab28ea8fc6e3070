"""Fine-tune a language model on labelled products, so that it tags.

    python -m sft.train sft/recipes/smollm2_qlora.yaml --data ../shared/data/hm --out runs/hm
    python -m sft.train --data ../shared/data/hm --out runs/hm --resume

Output contract: the run directory holds recipe.yaml, prompt.jinja, vocabulary.json (where the data's names no
limits: with those that the training products keep), tokenizer/, adapter/ (`full`: weights/), check.jsonl (the
validation products that an export is checked with), validation_taggings.jsonl (what confidences were calibrated
on), calibration.json, metrics.json and, written last, manifest.json. `python -m sft.export --run DIR` makes of it
what an engine serves. Progress goes to stderr; the last line of stdout is one JSON object with the validation
metrics. `--resume` continues a run that was stopped in any way from its last checkpoint. Exit codes: 0 done,
1 failed, 2 misused.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from hangtag.errors import MissingExtra, RecipeError
from hangtag.manifest import RunFiles
from sft.machine import compile_layers, keep_freed_memory, surroundings, with_number_format
from sft.program import TrainingProgram
from sft.recipe import TRAINER_DEFAULTS, TrainRecipe
from sft.run_directory import (
    CHECK_FILE,
    CHECKPOINTS,
    TAGGINGS_FILE,
    last_checkpoint,
    save_recipe,
)

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
        "max_length",
        "packing",
        "padding_free",
        "dataset_kwargs",
        "completion_only_loss",
    }
)


def train(recipe: TrainRecipe, data: Path, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run or resume the training in `out` and return the validation metrics."""
    keep_freed_memory()
    try:
        import peft  # noqa: F401
        import transformers
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "trl", "train") from None
    from hangtag.manifest import write_json
    from sft.continuing import begun_run, old_test, replayed
    from sft.labelled import draw, load_labelled_splits, tag_counts
    from sft.pairs import PairMaker, TagOrder, answer_settings, with_tail_repeated
    from sft.tagging_trainer import AllocateRanks, TaggingTrainer
    from sft.validation import Validation

    recipe = with_number_format(recipe)
    seed = (TRAINER_DEFAULTS | recipe.trainer)["seed"]
    transformers.set_seed(seed)
    dataset = load_labelled_splits(data)
    vocabulary = dataset.vocabulary
    begun = begun_run(recipe)
    products = replayed(recipe, draw(dataset.train, recipe.limit, seed), vocabulary, seed)
    if not recipe.template.is_file():
        raise RecipeError(f"prompt: {recipe.template} is not there; expected a name of prompts/ or a path")
    save_recipe(out, recipe)
    vocabulary.save(RunFiles(out).vocabulary)
    template = RunFiles(out).prompt
    shutil.copyfile(recipe.template, template)

    from sft.language_model import load_tokenizer, trainable_model

    tokenizer, num_rows = load_tokenizer(recipe, vocabulary, out / "tokenizer")
    settings = answer_settings(recipe, products, vocabulary, tokenizer)
    maker = PairMaker(
        tokenizer,
        vocabulary,
        settings,
        template=template,
        order=TagOrder(recipe.order, vocabulary, tag_counts(products)),
        augmentation=recipe.augment,
        seed=seed,
    )
    products = with_tail_repeated(products, recipe.tail_threshold, seed)
    arguments = _arguments(recipe, len(products), out)
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps
    num_steps = int(arguments.num_train_epochs * len(products) / batch)
    model, rows, new_tags = trainable_model(
        recipe, vocabulary, tokenizer, num_rows, num_steps=num_steps, begun=begun
    )
    if recipe.compile:
        compile_layers(model)
    checked = draw(dataset.validation, recipe.validate_on, seed)
    _keep_for_export(checked, out)
    old = draw(old_test(recipe, vocabulary), recipe.validate_on, seed)
    validation, remembered = (
        Validation(model, tokenizer, tagged, vocabulary, settings, template=template) for tagged in (checked, old)
    )
    trainer = TaggingTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        products=products,
        maker=maker,
        rows=rows,
        is_order_free=recipe.order == "free",
        rows_learning_rate=recipe.rows_learning_rate,
        validate=validation,
        checkpoint_minutes=recipe.checkpoint_minutes,
        patience=recipe.patience,
        callbacks=[AllocateRanks()] if recipe.method == "adalora" else [],
    )
    # Counted once a product up to here; each epoch counts again.
    over_limit = maker.num_over_limit
    before = {} if begun is None else trainer.measure(old_test=remembered, new_validation=validation)
    began = time.monotonic()
    checkpoint = last_checkpoint(out) if resume else None
    first_step = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    seconds = time.monotonic() - began
    metrics = _finish(recipe, trainer, dataset, settings, out, template)
    if begun is not None:
        after = trainer.measure(old_test=remembered, new_validation=validation)
        metrics["continued"] = {"run": begun.name, "before": before, "after": after}
    held = tag_counts(products)
    metrics |= {
        "tags_without_a_training_product": [name for name in vocabulary.names if not held[name]],
        "tags_new_in_this_run": new_tags,
        "num_train": len(products),
        "over_limit": over_limit,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "since_start_or_resume": _speed(trainer, first_step, seconds),
        "history": [entry for entry in trainer.state.log_history if "eval_set_f1" in entry],
    }
    write_json(RunFiles(out).metrics, metrics)
    _write_manifest(recipe, dataset, products, settings, metrics, out, seed)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    measured: dict[str, Any] = metrics["validation"]
    return measured


def _arguments(recipe: TrainRecipe, num_train: int, out: Path) -> Any:
    import trl

    settings = TRAINER_DEFAULTS | recipe.trainer
    steps = num_train / settings["per_device_train_batch_size"] / settings.get("gradient_accumulation_steps", 1)
    return trl.SFTConfig(
        **surroundings() | settings,
        output_dir=str(out / CHECKPOINTS),
        eval_strategy="steps",
        eval_steps=max(1, round(steps / recipe.validations_per_epoch)),
        save_strategy="best",
        # AdaLoRA's matrices change their shapes on the way: an earlier checkpoint does not fit the last ones.
        load_best_model_at_end=recipe.method != "adalora",
        metric_for_best_model="set_f1",
        greater_is_better=True,
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        completion_only_loss=False,
    )


def _finish(
    recipe: TrainRecipe, trainer: Any, dataset: Any, settings: Any, out: Path, template: Path
) -> dict[str, Any]:
    """Save the best weights, calibrate on validation, and return both metrics."""
    from sft.continuing import weights_folder
    from sft.labelled import draw
    from sft.validation import calibrate, score, tag_with

    trainer.sync_rows()
    trainer.save_model(str(weights_folder(out, recipe.method)))
    products = draw(dataset.validation, recipe.calibrate_on, trainer.args.seed)
    print(f"tagging {len(products)} validation products for calibration", file=sys.stderr, flush=True)
    with trainer.compute_loss_context_manager():
        taggings = tag_with(
            trainer.model, trainer.processing_class, products, dataset.vocabulary, settings, template=template
        )
    lines = [tagging.to_json() + "\n" for tagging in taggings]
    (out / TAGGINGS_FILE).write_text("".join(lines), encoding="utf-8")
    calibration, errors = calibrate(taggings, products)
    if calibration is None:
        print("no tag was given, so confidences are not calibrated", file=sys.stderr)
    else:
        calibration.save(RunFiles(out).calibration)
    return {"validation": score(taggings, products, dataset.vocabulary), "calibration": errors}


def _keep_for_export(products: Any, out: Path) -> None:
    """Write the products that `sft.export` checks the exported weights with."""
    lines = [product.model_dump_json() + "\n" for product in products]
    (out / CHECK_FILE).write_text("".join(lines), encoding="utf-8")


def _speed(trainer: Any, first_step: int, seconds: float) -> dict[str, float]:
    import torch

    steps = trainer.state.global_step - first_step
    samples = steps * trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps
    tokens = sum(trainer.lengths) / len(trainer.lengths) * samples
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "samples_per_s": round(samples / seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "peak_memory_gib": round(peak, 2),
    }


def _write_manifest(
    recipe: TrainRecipe, dataset: Any, products: Any, settings: Any, metrics: dict[str, Any], out: Path, seed: int
) -> None:
    from hangtag.manifest import RunManifest, file_sha256, folder_sha256
    from sft.continuing import weights_folder

    RunManifest(
        program="sft.train",
        kind=recipe.method,
        base_model=recipe.model,
        vocabulary=dataset.vocabulary.fingerprint,
        data={"folder": dataset.folder.name, "digest": dataset.digest, "num_train": len(products)},
        seed=seed,
        metrics=metrics["validation"],
        details={
            "method": recipe.method,
            "answers": settings.model_dump(),
            "prompt_sha256": file_sha256(RunFiles(out).prompt),
            "adapter_sha256": folder_sha256(weights_folder(out, recipe.method)),
            "speed": metrics["since_start_or_resume"],
        },
    ).write(out)


main = TrainingProgram(
    name="sft.train",
    description=__doc__,
    recipe=TrainRecipe,
    trainer_options="trl.SFTConfig",
    set_here=_OURS,
    train=train,
    when_out_of_memory="trainer.per_device_train_batch_size and raise trainer.gradient_accumulation_steps by the "
    "same factor, set trainer.gradient_checkpointing: true, or lower title, description and attributes",
).main

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
