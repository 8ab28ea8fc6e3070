"""Let a base model read a catalogue before it learns to tag: domain-adaptive pre-training on unlabelled text.

    python -m sft.pretrain sft/recipes/smollm2_pretrain.yaml --texts products.jsonl --out runs/read
    python -m sft.pretrain --texts products.jsonl --out runs/read --resume

IN is a catalogue (.jsonl, .csv, also .gz, .parquet). Texts are packed into stretches of `stretch` tokens, an end
token between two. The run directory holds recipe.yaml, model/ (a Hugging Face folder: the base with what was
trained merged into it), metrics.json and, written last, manifest.json; name RUN/model as `model` in a recipe of
`sft.train`. The last line of stdout is one JSON object with the perplexity on held-out texts before and after.
Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hangtag.errors import DataError, MissingExtra
from hangtag.manifest import RunFiles
from sft.machine import keep_freed_memory, surroundings, with_number_format
from sft.program import TrainingProgram
from sft.recipe import TRAINER_DEFAULTS, TrainingRecipe
from sft.run_directory import (
    CHECKPOINTS,
    last_checkpoint,
    save_recipe,
)

_OURS = frozenset(
    {
        "output_dir",
        "max_length",
        "packing",
        "packing_strategy",
        "dataset_text_field",
        "eval_strategy",
        "save_strategy",
        "save_steps",
    }
)


class PretrainRecipe(TrainingRecipe):
    """Settings of one run over unlabelled text."""

    model: str
    """The base model: a packaged model's name, a folder or a hub id."""
    method: Literal["lora", "qlora", "full"] = "lora"
    """See `sft.recipe.TrainRecipe.method`; the adapter is merged at the end."""
    rank: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stretch: int = Field(default=512, ge=16)
    """Tokens of a packed sequence."""
    held_out: int = Field(default=200, ge=1)
    """Texts, drawn with the seed, that perplexity is measured on."""
    general: str | None = None
    """A text file, one document a line, mixed in so that general language is not forgotten."""
    general_share: float = Field(default=0.1, ge=0, lt=1)
    """Documents of `general` among all that are read."""


def pretrain(recipe: PretrainRecipe, texts: Path, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run or resume the reading in `out`; return the perplexities."""
    keep_freed_memory()
    try:
        import datasets
        import peft
        import transformers
        import trl
    except ImportError as error:
        raise MissingExtra(error.name or "trl", "train") from None
    from hangtag.manifest import RunManifest, file_sha256, write_json
    from hangtag.models import resolve_model
    from sft.language_model import base_dtype, load_base
    from sft.trainer_parts import ProgressLine, SaveByTime, keep_trained_in_float32

    recipe = with_number_format(recipe)
    settings = TRAINER_DEFAULTS | {"num_train_epochs": 1, "learning_rate": 2e-4} | recipe.trainer
    read, held_out = documents(recipe, texts, settings["seed"])
    save_recipe(out, recipe)
    source = resolve_model(recipe.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = load_base(source, in_nf4=recipe.method == "qlora", dtype=base_dtype(recipe.trainer))
    adapter = None
    if recipe.method != "full":
        adapter = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            lora_dropout=recipe.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            **surroundings() | settings,
            output_dir=str(out / CHECKPOINTS),
            max_length=recipe.stretch,
            packing=True,
            # Stretches are filled to the last token, texts run over their ends: no attention kernel is asked for.
            packing_strategy="wrapped",
            dataset_text_field="text",
            eval_strategy="no",
            save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_dict({"text": read}),
        eval_dataset=datasets.Dataset.from_dict({"text": held_out}),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[ProgressLine(), SaveByTime(recipe.checkpoint_minutes)],
    )
    keep_trained_in_float32(trainer.model)
    before = math.exp(trainer.evaluate()["eval_loss"])
    checkpoint = last_checkpoint(out) if resume else None
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    after = math.exp(trainer.evaluate()["eval_loss"])
    _save_merged(trainer, recipe, source, tokenizer, out)
    metrics = {
        "num_documents": len(read),
        "steps": trainer.state.global_step,
        "perplexity_before": round(before, 3),
        "perplexity_after": round(after, 3),
    }
    write_json(RunFiles(out).metrics, metrics)
    RunManifest(
        program="sft.pretrain",
        kind="pretrained",
        base_model=recipe.model,
        vocabulary="",
        data={"file": texts.name, "digest": file_sha256(texts), "num_documents": len(read)},
        seed=settings["seed"],
        metrics=metrics,
    ).write(out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return metrics


def documents(recipe: PretrainRecipe, texts: Path, seed: int) -> tuple[list[str], list[str]]:
    """Return the documents to read, shuffled, and those that are held out.

    Raises:
        DataError: the catalogue has too few products, or the general text is missing.
    """
    from hangtag.catalogue.products import read_catalogue
    from hangtag.product import Product

    found = [row.text for row in read_catalogue(texts) if isinstance(row, Product)]
    generator = random.Random(seed)
    generator.shuffle(found)
    held_out, read = found[: recipe.held_out], found[recipe.held_out :][: recipe.limit]
    if not read:
        raise DataError(
            f"{texts}: {len(found)} products, of which {recipe.held_out} are held out; none is left to read"
        )
    if recipe.general is not None:
        try:
            general = [
                line for line in Path(recipe.general).read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"general: {recipe.general} cannot be read ({error}); expected a text file") from None
        number = round(len(read) * recipe.general_share / (1 - recipe.general_share))
        read += generator.sample(general, min(number, len(general)))
        generator.shuffle(read)
    return read, held_out


def _save_merged(trainer: Any, recipe: PretrainRecipe, source: str, tokenizer: Any, out: Path) -> None:
    import peft
    import torch

    from sft.language_model import load_base

    model = trainer.accelerator.unwrap_model(trainer.model)
    if recipe.method != "full":
        adapter = RunFiles(out).adapter
        model.save_pretrained(adapter)
        # Never into NF4: the base is loaded again as it is.
        base = load_base(source, in_nf4=False, dtype=torch.float32)
        model = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload()
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


main = TrainingProgram(
    name="sft.pretrain",
    description=__doc__,
    recipe=PretrainRecipe,
    trainer_options="trl.SFTConfig",
    set_here=_OURS,
    train=pretrain,
    when_out_of_memory="trainer.per_device_train_batch_size and raise trainer.gradient_accumulation_steps by the "
    "same factor, set trainer.gradient_checkpointing: true, or lower stretch",
    source="texts",
    source_help="the catalogue: .jsonl, .csv, also .gz, or .parquet",
).main


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
