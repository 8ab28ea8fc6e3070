"""Products/s and correctness of constrained decoding through vLLM, side by side in one run.

Contestants, each a vLLM engine of its own on the same model, prompts and token limit:

    set         hangtag's decoder
    xgrammar    vLLM's structured outputs on the JSON schema of the same vocabulary, backend xgrammar
    guidance    the same, backend guidance
    free        no constraint, made to write as many tokens a product as `set` does on average

They take turns, round by round, so that a busy machine slows all of them. The first round of each counts
apart: it holds the compilation of vocabulary or schema, which a user waits for; prefixes of prompts are cached
from then on. Counted: answers that are no JSON list (invalid), tags outside the vocabulary (unknown), repeated
tags, tags over a facet's limit, answers that ran into the token limit unclosed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.contestant import Contestant
from hangtag import program
from hangtag.catalogue.labelled import load_dataset
from hangtag.constraint import parse_answer
from hangtag.errors import RecipeError
from hangtag.language_model.run import read_run
from hangtag.loading import DEFAULT_MODEL
from hangtag.manifest import RunFiles, provenance, write_json
from hangtag.product import Product
from hangtag.sample import sample_folder
from hangtag.vocabulary import Tag, TagVocabulary

CONTESTANTS = ("set", "xgrammar", "guidance", "free")
_SCHEMA_BACKENDS = ("xgrammar", "guidance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="a labelled dataset (default: the sample)")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help="the language model (default: %(default)s)"
    )
    parser.add_argument(
        "--run",
        dest="fine_tuned",
        type=Path,
        metavar="DIR",
        help="an exported run of sft.train in place of --model, with its prompt and vocabulary",
    )
    parser.add_argument("--dtype", metavar="T", help="float32 or bfloat16 (default: the faster by a probe)")
    parser.add_argument(
        "--products", type=int, default=128, metavar="N", help="products a round (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="rounds after the first (default: %(default)s)"
    )
    parser.add_argument(
        "--num-tags", type=int, metavar="N", help="fill the vocabulary up to N tags with invented ones"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=128, metavar="N", help="tokens an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tags", type=int, default=8, metavar="N", help="tags an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--in-flight", type=int, default=64, metavar="N", help="sequences at once (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="of sampling, 0 is greedy (default: %(default)s)",
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="(default: all four)"
    )
    parser.add_argument("--short", action="store_true", help="32 products, 1 round, set and xgrammar only")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code."""
    if arguments.short:
        arguments.products, arguments.rounds, arguments.contestants = 32, 1, ["set", "xgrammar"]
    if arguments.products < 1 or arguments.rounds < 0:
        raise RecipeError("--products needs at least 1, --rounds at least 0")
    if "free" in arguments.contestants and "set" not in arguments.contestants:
        raise RecipeError("contestant free writes as many tokens as set does: name set too")
    data = load_dataset(arguments.data or sample_folder(), splits=("train", "test"))
    vocabulary = data.vocabulary
    if arguments.fine_tuned:
        vocabulary = read_run(arguments.fine_tuned).vocabulary
        arguments.model = str(arguments.fine_tuned / "model")
        if arguments.num_tags:
            raise RecipeError("--num-tags: a run knows its own tags only; leave one of --run and --num-tags out")
    vocabulary = vocabulary.with_some_limits(product.tags or () for product in data.train)
    if arguments.num_tags:
        vocabulary = _filled(vocabulary, arguments.num_tags)
    products = [data.test[n % len(data.test)] for n in range(arguments.products)]

    order = [name for name in CONTESTANTS if name in arguments.contestants]
    options = vars(arguments) | {"run": None}
    workers = {name: Contestant(name, _work, name, options, vocabulary.to_json(), products) for name in order}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    try:
        dtypes = [
            worker.start() for worker in program.progress("starting engines", "engine", iterable=workers.values())
        ]
        exact_tokens = None
        for _ in program.progress("rounds", "round", iterable=range(arguments.rounds + 1)):
            for name in order:
                result = workers[name].ask({"exact_tokens": exact_tokens})
                rounds[name].append(result)
                if name == "set":
                    exact_tokens = max(1, round(result["output_tokens"] / result["answers"]))
    finally:
        for worker in workers.values():
            worker.stop()
    document = {
        "benchmark": "decode",
        "settings": {
            "data": str(data.folder.name),
            "data_sha256": data.digest,
            "vocabulary": vocabulary.fingerprint,
            "num_tags": len(vocabulary),
            **{
                name: getattr(arguments, name)
                for name in ("products", "rounds", "max_tokens", "max_tags", "in_flight", "temperature")
            },
            "model": arguments.model if not arguments.fine_tuned else arguments.fine_tuned.name,
            "dtype": dtypes[0],
        },
        "contestants": {name: _summary(results) for name, results in rounds.items()},
        "provenance": provenance(),
    }
    _print(document)
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, ensure_ascii=False))
    return 0


def _filled(vocabulary: TagVocabulary, num_tags: int) -> TagVocabulary:
    """Return the vocabulary with invented tags added up to `num_tags`."""
    from bench.constraint import synthetic_vocabulary

    names = {name.casefold() for name in vocabulary.names}
    invented = (tag.tag for tag in synthetic_vocabulary(num_tags + len(names)) if tag.tag.casefold() not in names)
    tags = list(vocabulary.tags)
    for name in invented:
        if len(tags) >= num_tags:
            break
        tags.append(Tag(name, "invented"))
    return TagVocabulary(tags, facets=vocabulary.facets)


def _work(
    connection: Connection, name: str, options: dict[str, Any], document: dict[str, Any], products: list[Product]
) -> None:
    from hangtag.constraint import Limits
    from hangtag.engines.vllm_offline import VllmEngine
    from hangtag.language_model.generative import Decoding, Request
    from hangtag.language_model.prompt import Budget
    from hangtag.loading import fine_tuned_tagger, load_tagger

    vocabulary = TagVocabulary.from_json(document)
    backend = {"structured_outputs_config": {"backend": name}} if name in _SCHEMA_BACKENDS else {}
    engine = VllmEngine(
        options["model"], dtype=options["dtype"], max_in_flight=options["in_flight"], options=backend
    )
    connection.send(engine.dtype)
    while (request := connection.recv()) is not None:
        start = time.perf_counter()
        decoding: Decoding = "schema" if name in _SCHEMA_BACKENDS else "free" if name == "free" else "set"
        limits = Limits(max_tags=options["max_tags"])
        if run := options["fine_tuned"]:
            settings = read_run(run).answers.model_copy(update={"max_tokens": options["max_tokens"]})
            tagger = fine_tuned_tagger(
                engine, vocabulary, settings, template=RunFiles(run).prompt, decoding=decoding, limits=limits
            )
        else:
            tagger = load_tagger(
                vocabulary,
                engine,
                decoding=decoding,
                limits=limits,
                # Finding the tags nearest to each product is no part of decoding.
                budget=Budget(shortlist=0),
                evidence=None,
                max_tokens=options["max_tokens"],
            )
        plan = replace(
            tagger.plan,
            temperature=options["temperature"],
            exact_tokens=request["exact_tokens"] if name == "free" else None,
        )
        prompts = [prompt for prompt in tagger.prompt_ids(products) if not isinstance(prompt, str)]
        requests = [Request(key, prompt) for key, prompt in enumerate(prompts)]
        generations = [generation for _, generation in engine.stream(requests, plan)]
        seconds = time.perf_counter() - start
        counts: Counter[str] = Counter()
        for generation in generations:
            text = engine.tokenizer.decode([*plan.prefix, *generation.token_ids], skip_special_tokens=True)
            answer = parse_answer(text, vocabulary, plan.limits)
            counts["invalid"] += answer.reason is not None
            counts["unclosed"] += answer.reason is not None and len(generation.token_ids) >= options["max_tokens"]
            for kind in ("unknown", "repeated", "over_limit"):
                counts[f"answers_{kind}"] += kind in answer.violations
            counts["incorrect"] += not answer.is_correct_set
        connection.send(
            {
                "seconds": seconds,
                "output_tokens": sum(len(generation.token_ids) for generation in generations),
                "answers": len(generations),
                **counts,
            }
        )
    engine.close()


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    later = results[1:] or results
    rates = [result["answers"] / result["seconds"] for result in later]
    counted = ("incorrect", "invalid", "unclosed", "answers_unknown", "answers_repeated", "answers_over_limit")
    return {
        "products_per_s": round(statistics.median(rates), 3),
        "products_per_s_all": [round(rate, 3) for rate in rates],
        "products_per_s_first": round(results[0]["answers"] / results[0]["seconds"], 3),
        "output_tokens_per_product": round(
            sum(r["output_tokens"] for r in later) / sum(r["answers"] for r in later), 2
        ),
        "answers": sum(result["answers"] for result in results),
        **{name: sum(result[name] for result in results) for name in counted},
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = document["settings"]
    table = Table(
        title=f"{settings['num_tags']} tags, {settings['products']} products a round of {settings['data']}, "
        f"{settings['model']} in {settings['dtype']}"
    )
    columns = ["", "products/s", "first round", "against xgrammar", "tokens/product", "answers", "incorrect",
               "invalid", "unclosed", "unknown", "repeated", "over limit"]  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    base = document["contestants"].get("xgrammar")
    for name, figures in document["contestants"].items():
        ratio = f"{figures['products_per_s'] / base['products_per_s']:.2f}x" if base else ""
        counts = [figures[key] for key in ("answers", "incorrect", "invalid", "unclosed")]
        counts += [figures[f"answers_{kind}"] for kind in ("unknown", "repeated", "over_limit")]
        table.add_row(
            name,
            f"{figures['products_per_s']:.2f}",
            f"{figures['products_per_s_first']:.2f}",
            ratio,
            f"{figures['output_tokens_per_product']:.1f}",
            *map(str, counts),
        )
    Console(stderr=True, width=140).print(table)


def main(argv: list[str] | None = None) -> int:
    """Run this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
