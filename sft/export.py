"""Make of a run what an engine serves: merged weights, checked against the trained model.

    python -m sft.export --run runs/hm
    python -m sft.export --run runs/hm --quantize int8

Writes RUN/model, a Hugging Face folder: the adapter merged in 16 bits (never in NF4) into the base that it was
trained over, the tag rows in the embeddings, the extended tokenizer. With `--quantize int8` also RUN/model-int8
(compressed-tensors W8A8), the form suggested for CPUs. Before anything stands under its name, the parity gate
tags products of the run (check.jsonl) with transformers and the adapter, with the merged weights in transformers,
and in vLLM. What was measured goes into the run's manifest; the last line of stdout is the same as JSON. Exit
codes: 0 done, 1 an export beyond the tolerance, 2 misused.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.durable import replaced
from hangtag.errors import DataError, MissingExtra, RecipeError
from hangtag.manifest import RunFiles

NUM_PARITY = 64
_BASE = ".base"


def main(argv: Sequence[str] | None = None) -> int:
    """Export the run and return the exit code."""
    parser = program.parser("python -m sft.export", __doc__)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="a completed run of sft.train")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="number format of the merged weights (default: %(default)s)",
    )
    parser.add_argument("--quantize", choices=("int8",), help="write model-int8 too, for CPUs")
    options = parser.parse_args(argv)

    def work() -> int:
        print(json.dumps(export(options.run, options.dtype, options.quantize)))
        return 0

    return program.run("sft.export", work)


def export(run: Path, dtype: str, quantize: str | None) -> dict[str, Any]:
    """Write the weights into the run and return what was measured."""
    from hangtag.catalogue.labelled import load_labelled
    from hangtag.config import load_recipe
    from hangtag.language_model.run import read_run
    from hangtag.manifest import RunManifest, folder_sha256
    from sft.recipe import TrainRecipe
    from sft.run_directory import CHECK_FILE

    try:
        import peft  # noqa: F401
        import vllm  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "vllm", "train") from None
    trained = read_run(run)
    settings, vocabulary = trained.answers, trained.vocabulary
    recipe = load_recipe(RunFiles(run).recipe, TrainRecipe)
    if recipe.method == "prefix":
        raise RecipeError(
            f"{run}: vLLM serves no prefix-tuning, so there is nothing to export; its metrics.json holds what it "
            "scores through transformers"
        )
    products = load_labelled(run / CHECK_FILE)
    if not products:
        raise DataError(f"{run}: {CHECK_FILE} holds no product to check the export with")
    measured: dict[str, Any] = {"dtype": dtype}
    with replaced(run / "model") as staged:
        adapted = _merge(run, recipe, vocabulary, staged, dtype, products[:NUM_PARITY], settings)
        measured["parity"] = _gate(run, recipe, staged, dtype, adapted, products, vocabulary, settings)
        shutil.rmtree(run / _BASE, ignore_errors=True)
    measured["sha256"] = folder_sha256(run / "model")
    if quantize:
        from sft.int8 import write_int8

        measured["served"] = _served(run, run / "model", products, vocabulary, settings)
        with replaced(run / "model-int8") as staged:
            write_int8(run / "model", staged)
            measured["int8"] = _served(run, staged, products, vocabulary, settings)
        measured["int8"] |= {
            f"{name}_change": round(measured["int8"][name] - measured["served"][name], 4)
            for name in ("set_f1", "exact_match")
        }
        measured["int8"]["sha256"] = folder_sha256(run / "model-int8")
    manifest = RunManifest.read(run)
    manifest.model_copy(update={"details": manifest.details | {"export": measured}}).write(run)
    return measured


def _merge(
    run: Path, recipe: Any, vocabulary: Any, staged: Path, dtype: str, products: Any, settings: Any
) -> list[Any]:
    """Write the merged weights into `staged`; return the taggings of weights and adapter apart, in float32."""
    import torch
    import transformers

    from hangtag.language_model.tag_tokens import TagTokens
    from hangtag.models import resolve_model
    from sft.continuing import weights_folder
    from sft.language_model import grow_embeddings, load_base, load_trained_base, tag_rows
    from sft.validation import tag_with

    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "tokenizer", padding_side="left")
    if recipe.method == "full":
        model = load_base(str(weights_folder(run, recipe.method)), in_nf4=False, dtype=torch.float32)
    else:
        import peft

        model = load_trained_base(recipe, resolve_model(recipe.model))
        if settings.answer == "text":
            # For the adapter in vLLM; see `_gate`.
            model.save_pretrained(run / _BASE)
    if settings.answer == "tag_tokens":
        tokens = TagTokens.read(tokenizer.get_vocab(), vocabulary)
        rows = tag_rows(model, tokenizer, vocabulary, tokens)
        rows.load(weights_folder(run, recipe.method))
        grow_embeddings(model, max(tokens.open, tokens.close, *tokens.first, *tokens.later) + 1)
        rows.write_into(model)
    if recipe.method != "full":
        model = peft.PeftModel.from_pretrained(model, RunFiles(run).adapter)
    taggings = tag_with(model, tokenizer, products, vocabulary, settings, template=RunFiles(run).prompt)
    if recipe.method != "full":
        model = model.merge_and_unload()
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.to(getattr(torch, dtype)).save_pretrained(staged)
    for file in (run / "tokenizer").iterdir():
        shutil.copyfile(file, staged / file.name)
    return taggings


def _gate(
    run: Path, recipe: Any, staged: Path, dtype: str, adapted: Any, products: Any, vocabulary: Any, settings: Any
) -> list[dict[str, object]]:
    """Return the comparisons of the ways to run the model. Raises TrainingError: beyond the tolerance."""
    from hangtag.engines.transformers_local import TransformersEngine
    from hangtag.engines.vllm_offline import VllmEngine
    from sft.parity import EXACT, ROUNDED, Parity

    checked = products[:NUM_PARITY]

    def tag(engine: Any) -> list[Any]:
        return list(_tagger(run, engine, vocabulary, settings).tag(checked))

    merged = tag(TransformersEngine(str(staged), dtype="float32"))
    found = [
        Parity.of(("transformers, adapter", adapted), ("transformers, merged", merged)).check(
            EXACT if dtype == "float32" else ROUNDED
        )
    ]
    engine = VllmEngine(str(staged), dtype="float32")
    found.append(Parity.of(("transformers, merged", merged), ("vLLM, merged", tag(engine))).check(EXACT))
    engine.close()
    if settings.answer == "text" and recipe.method in ("qlora", "lora"):
        engine = VllmEngine(
            str(run / _BASE),
            dtype="float32",
            adapter=RunFiles(run).adapter,
            options={"tokenizer": str(run / "tokenizer")},
        )
        found.append(Parity.of(("transformers, adapter", adapted), ("vLLM, adapter", tag(engine))).check(EXACT))
        engine.close()
    return found


def _served(run: Path, weights: Path, products: Any, vocabulary: Any, settings: Any) -> dict[str, Any]:
    """Return set-F1, exact match and products/s of the weights in vLLM, as they will be served here."""
    import time

    from hangtag.engines.vllm_offline import VllmEngine
    from sft.validation import score

    engine = VllmEngine(str(weights))
    tagger = _tagger(run, engine, vocabulary, settings)
    began = time.monotonic()
    scores = score(tagger.tag(products), products, vocabulary)
    seconds = time.monotonic() - began
    engine.close()
    return {
        "num_products": len(products),
        "served_as": engine.dtype,
        **{name: round(value, 4) for name, value in scores.items()},
        "products_per_s": round(len(products) / seconds, 2),
    }


def _tagger(run: Path, engine: Any, vocabulary: Any, settings: Any) -> Any:
    from hangtag.loading import fine_tuned_tagger

    return fine_tuned_tagger(engine, vocabulary, settings, template=RunFiles(run).prompt)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
