"""From a base model to one that can be trained: quantised, extended, with its adapter. Imports torch and peft."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from hangtag.errors import ModelError
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.language_model.tag_tokens import TagTokens, check_unreachable, extend_tokenizer, ordinary_tokens
from hangtag.models import resolve_model
from hangtag.vocabulary import TagVocabulary
from sft.continuing import take_rows, weights_folder
from sft.recipe import TrainRecipe
from sft.tag_rows import TagRows

PLAIN_CHAT = Path(__file__).with_name("plain_chat.jinja")
_TOKENIZER = "tokenizer.json"
# Matrix products on GPUs like sizes that this divides.
_ROWS_MULTIPLE = 64


def load_tokenizer(recipe: TrainRecipe, vocabulary: TagVocabulary, folder: Path) -> tuple[Any, int]:
    """Write the run's tokenizer into `folder` and return it, with the number of embedding rows that it needs.

    It is the base model's, with the recipe's chat form and, where a tag is one token, extended by the tags.

    Raises:
        ModelError: the model is not there, or has no chat template though the recipe wants its.
        ConstraintError: the tokenizer cannot be extended.
    """
    source = resolve_model(recipe.model)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(f"{recipe.model}: no tokenizer ({str(error).splitlines()[0]:.300})") from None
    if recipe.chat == "plain":
        tokenizer.chat_template = PLAIN_CHAT.read_text(encoding="utf-8")
    elif tokenizer.chat_template is None:
        raise ModelError(f"{recipe.model}: has no chat template; set `chat: plain` in the recipe")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    if recipe.answer == "text":
        return tokenizer, 0
    extension = extend_tokenizer((folder / _TOKENIZER).read_text(encoding="utf-8"), vocabulary)
    (folder / _TOKENIZER).write_text(extension.definition, encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    check_unreachable(HFPieceTokenizer(tokenizer), extension, vocabulary)
    return tokenizer, extension.num_rows


def base_dtype(trainer: dict[str, Any]) -> torch.dtype:
    """Return what a base is loaded in for training: bfloat16 on a GPU if the trainer computes in it, else float32,
    over which autocast computes in bfloat16."""
    return torch.bfloat16 if torch.cuda.is_available() and trainer.get("bf16", False) else torch.float32


def load_base(source: str, *, in_nf4: bool, dtype: torch.dtype) -> Any:
    """Return a causal language model on this machine's device; `in_nf4` quantises its linear layers.

    Raises:
        ModelError: transformers cannot load it.
    """
    options: dict[str, Any] = {"dtype": dtype}
    if in_nf4:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    if torch.cuda.is_available():
        # Under `accelerate launch` every process trains on a GPU of its own.
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: transformers cannot load it ({str(error).splitlines()[0]:.300})") from None


def load_trained_base(recipe: TrainRecipe, source: str) -> Any:
    """Return the base that the recipe's adapter was trained over, in float32 and to be merged into.

    Of `qlora` that is the base as NF4 rounds it, not the base before: an adapter makes up for the rounding, too.
    On hm (SmolLM2, 12,000 products, 300 of validation) an export over the rounded base scored 0.763 in set-F1,
    over the other 0.738; the model in training had 0.759 (sft/LOG.md).

    Raises:
        ModelError: transformers cannot load it.
    """
    model = load_base(source, in_nf4=recipe.method == "qlora", dtype=torch.float32)
    return model.dequantize() if recipe.method == "qlora" else model


def grow_embeddings(model: Any, num_rows: int) -> None:
    """Give the model's embeddings at least `num_rows` rows; they are filled later."""
    if model.get_input_embeddings().num_embeddings < num_rows:
        model.resize_token_embeddings(num_rows, pad_to_multiple_of=_ROWS_MULTIPLE, mean_resizing=False)


def tag_rows(model: Any, tokenizer: Any, vocabulary: TagVocabulary, tokens: TagTokens) -> TagRows:
    """Return the rows of the run's tag tokens, at the mean of the tags' ordinary rows."""
    ordinary = ordinary_tokens(HFPieceTokenizer(tokenizer), vocabulary)
    return TagRows.start(model, tokens, ordinary)


def with_adapter(model: Any, recipe: TrainRecipe, *, num_steps: int, start: Path | None = None) -> Any:
    """Return the model with the recipe's adapter, whose weights alone are trained; `full` trains all weights.

    `start` is the adapter folder of the run that is continued.
    """
    if recipe.method == "full":
        return model
    if start is not None:
        return peft.PeftModel.from_pretrained(model, start, is_trainable=True)
    alpha = recipe.alpha or 2 * recipe.rank
    everywhere = {"target_modules": "all-linear", "lora_dropout": recipe.dropout, "task_type": "CAUSAL_LM"}
    if recipe.method == "prefix":
        config: Any = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=recipe.prefix_tokens)
    elif recipe.method == "adalora":
        config = peft.AdaLoraConfig(
            init_r=round(1.5 * recipe.rank),
            target_r=recipe.rank,
            lora_alpha=alpha,
            tinit=num_steps // 10,
            tfinal=num_steps // 2,
            deltaT=10,
            total_step=num_steps,
            **everywhere,
        )
    else:
        config = peft.LoraConfig(r=recipe.rank, lora_alpha=alpha, use_dora=recipe.method == "dora", **everywhere)
    return peft.get_peft_model(model, config)


def trainable_model(
    recipe: TrainRecipe,
    vocabulary: TagVocabulary,
    tokenizer: Any,
    num_rows: int,
    *,
    num_steps: int,
    begun: Path | None,
) -> tuple[Any, TagRows | None, list[str]]:
    """Return the model with its adapter, the tag rows (None for answers in ordinary tokens), and the tags that the
    run which is gone on with (`begun`) did not have.

    Raises:
        ModelError: the base model cannot be loaded.
    """
    start = None if begun is None else weights_folder(begun, recipe.method)
    model = load_base(
        str(start) if start is not None and recipe.method == "full" else resolve_model(recipe.model),
        in_nf4=recipe.method == "qlora",
        dtype=base_dtype(recipe.trainer),
    )
    rows: TagRows | None = None
    new_tags: list[str] = []
    if recipe.answer == "tag_tokens":
        rows = tag_rows(model, tokenizer, vocabulary, TagTokens.read(tokenizer.get_vocab(), vocabulary))
        grow_embeddings(model, num_rows)
        if begun is not None:
            new_tags = take_rows(rows, vocabulary, begun, recipe.method)
    model = with_adapter(model, recipe, num_steps=num_steps, start=start)
    if rows is not None:
        # Under this name the optimiser and the checkpoints find them.
        model.tag_rows = rows.to(model.device)
    return model, rows, new_tags
