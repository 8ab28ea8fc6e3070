"""What a catalogue run costs on top of vLLM: products/s beside vLLM alone, and beside `vllm run-batch`.

Contestants, on the same model and the same products, cut to the same texts:

    catalogue   `serve.generate` with hangtag's decoder: reading, keys, parts, ledger, report
    bare        `vllm.LLM.generate` on the same prompts, as token ids, with the same decoder: nothing else
    run-batch   vLLM's batch runner on a file of chat requests under the JSON schema of the same vocabulary

They take turns, round by round, each round with products of its own. `catalogue` and `bare` are asked of one and
the same engine, whose prefix cache is emptied before each turn; starting engines is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from itertools import chain, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.contestant import Contestant
from hangtag import program
from hangtag.catalogue.labelled import Dataset, load_dataset
from hangtag.constraint import Limits, parse_answer
from hangtag.engines.vllm_offline import KV_CACHE_GIB, VllmEngine
from hangtag.errors import RecipeError
from hangtag.language_model.generative import GenerativeTagger
from hangtag.manifest import provenance
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary
from serve import generate

_MODEL = "hangtag-bench"
_BATCH_OUTPUT = "batch-out.jsonl"
# What the rendered prompt goes through unchanged.
_AS_IT_IS = "{{ messages[0]['content'] }}"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the contestants and return the benchmark's document.

    Raises:
        HangtagError: the dataset is refused, or too small, or an engine ended.
    """
    data = load_dataset(arguments.data, splits=("train", "test"))
    rounds = _rounds(data, arguments.products, arguments.rounds)
    results: dict[str, list[dict[str, Any]]] = {"catalogue": [], "bare": [], "run-batch": []}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = _tagger_options(arguments, data, Path(folder))
        ours = Contestant("catalogue", _work_ours, command)
        theirs = None
        try:
            settings = ours.start()
            theirs = Contestant("run-batch", _work_run_batch, settings)
            theirs.start()
            vocabulary, limits = TagVocabulary.from_json(settings["vocabulary"]), settings["limits"]
            for number, products in enumerate(program.progress("rounds", "round", iterable=rounds)):
                place = Path(folder) / f"round-{number}"
                place.mkdir()
                lines = [product.model_dump_json(exclude={"tags"}) for product in products]
                (place / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
                for name, figures in ours.ask((str(place), products)).items():
                    results[name].append(figures)
                prompts = json.loads((place / "prompts.json").read_text(encoding="utf-8"))
                results["run-batch"].append(_counted(theirs.ask((str(place), prompts)), place, vocabulary, limits))
        finally:
            ours.stop()
            if theirs is not None:
                theirs.stop()
    document = {
        "benchmark": "catalogue",
        "engine": "vllm",
        "settings": {
            "data": data.folder.name,
            "data_sha256": data.digest,
            "products": sum(map(len, rounds)),
            "rounds": len(rounds),
            "model": arguments.run_directory.name if arguments.run_directory else arguments.model,
            "num_tags": len(vocabulary),
            "dtype": settings["dtype"],
        },
        "contestants": {name: _summary(each) for name, each in results.items()},
        "ratios": {
            "catalogue_to_bare": _ratio(results["catalogue"], results["bare"]),
            "catalogue_to_run_batch": _ratio(results["catalogue"], results["run-batch"]),
        },
        "provenance": provenance(),
    }
    _print(document)
    return document


def _rounds(data: Dataset, num_products: int, num_rounds: int) -> list[list[Product]]:
    """Return each round's products, no text twice: a catalogue run tags equal products once."""
    distinct = {product.text: product for product in chain(data.test, data.train)}
    products = list(islice(distinct.values(), num_products))
    if len(products) < num_products:
        raise RecipeError(f"--products {num_products}: {data.folder.name} has {len(products)} distinct ones")
    size = num_products // num_rounds
    return [products[at * size : (at + 1) * size] for at in range(num_rounds)]


def _tagger_options(arguments: argparse.Namespace, data: Dataset, folder: Path) -> list[str]:
    if arguments.run_directory:
        return ["--run", str(arguments.run_directory)]
    vocabulary = data.vocabulary.with_some_limits(product.tags or () for product in data.train)
    vocabulary.save(folder / "vocabulary.json")
    return ["--vocabulary", str(folder / "vocabulary.json"), "--model", arguments.model]


def _work_ours(connection: Connection, command: list[str]) -> None:
    """Answer (folder, products) with the figures of `catalogue` and `bare`, and leave prompts.json there."""
    sys.stdout = sys.stderr
    ours = _Ours(command)
    connection.send(ours.settings())
    is_bare_first = False
    while (request := connection.recv()) is not None:
        place, products = Path(request[0]), request[1]
        prompts = ours.write_prompts(products, place / "prompts.json")
        figures = {}
        for is_bare in (is_bare_first, not is_bare_first):
            ours.engine.llm.reset_prefix_cache()
            figures["bare" if is_bare else "catalogue"] = ours.bare(prompts) if is_bare else ours.catalogue(place)
        is_bare_first = not is_bare_first
        connection.send(figures)
    ours.engine.close()


class _Ours:
    """One engine, and a catalogue run's tagger over it."""

    def __init__(self, command: list[str]) -> None:
        from serve.catalogue_tagger import described

        self._command = command
        chosen = described(generate.parser().parse_args(["-", "-", *command]))
        tagger = chosen.spec.load("vllm")
        assert isinstance(tagger, GenerativeTagger)
        self.tagger = tagger
        assert isinstance(self.tagger.engine, VllmEngine)
        self.engine = self.tagger.engine
        self._loaded = dataclasses.replace(chosen, load=lambda: (self.tagger.stream, self.tagger.usage))

    def settings(self) -> dict[str, Any]:
        """Return what another engine needs to be set up alike."""
        from hangtag.language_model.generative import engine_schema

        tagger, scheduler = self.tagger, self.engine.llm.llm_engine.vllm_config.scheduler_config
        return {
            "model": self.engine.llm.model_config.model,
            "dtype": self.engine.dtype,
            "max_model_len": self.engine.max_model_len,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_tokens": tagger.plan.max_tokens,
            "schema": json.loads(engine_schema(tagger.vocabulary, tagger.plan.limits)),
            "vocabulary": tagger.vocabulary.to_json(),
            "limits": tagger.plan.limits,
        }

    def write_prompts(self, products: list[Product], path: Path) -> list[list[int]]:
        """Return the products' prompts, and write them as texts, without the answer's beginning."""
        prompts = [prompt for prompt in self.tagger.prompt_ids(products) if not isinstance(prompt, str)]
        num_prefix = len(self.tagger.plan.prefix)
        texts = [self.engine.tokenizer.decode(prompt[: len(prompt) - num_prefix]) for prompt in prompts]
        path.write_text(json.dumps(texts), encoding="utf-8")
        return prompts

    def bare(self, prompts: list[list[int]]) -> dict[str, Any]:
        params = self.engine.sampling_params(self.tagger.plan)
        start = time.perf_counter()
        outputs = self.engine.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False
        )
        return {
            "seconds": time.perf_counter() - start,
            "products": len(outputs),
            "output_tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
        }

    def catalogue(self, place: Path) -> dict[str, Any]:
        before = self.tagger.usage.output_tokens
        start = time.perf_counter()
        arguments = generate.parser().parse_args(
            [str(place / "in.jsonl"), str(place / "out"), *self._command, "--quiet"]
        )
        summary = generate.generate(arguments, tagger=self._loaded)
        return {
            "seconds": time.perf_counter() - start,
            "products": summary["rows"],
            "output_tokens": self.tagger.usage.output_tokens - before,
            "incorrect": summary["rows"] - summary["ok"],
        }


def _work_run_batch(connection: Connection, settings: dict[str, Any]) -> None:
    """Answer (folder, prompts) with seconds, and leave the batch's output there."""
    asyncio.run(_run_batches(connection, settings))


async def _run_batches(connection: Connection, settings: dict[str, Any]) -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB))
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.run_batch import make_arg_parser, run_batch
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    sys.stdout = sys.stderr
    options = ["-i", "-", "-o", "-", "--model", settings["model"], "--served-model-name", _MODEL]
    options += ["--dtype", settings["dtype"], "--generation-config", "vllm", "--enforce-eager"]
    options += ["--chat-template", _AS_IT_IS, "--enable-prefix-caching", "--disable-log-stats"]
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens"):
        options += [f"--{name.replace('_', '-')}", str(settings[name])]
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(options)
    form = {"type": "json_schema", "json_schema": {"name": "tagging", "schema": settings["schema"]}}
    body = {"model": _MODEL, "temperature": 0, "max_tokens": settings["max_tokens"], "response_format": form}
    async with build_async_engine_client(arguments, usage_context=UsageContext.OPENAI_BATCH_RUNNER) as client:
        connection.send(None)
        while (request := await asyncio.to_thread(connection.recv)) is not None:
            place, prompts = Path(request[0]), request[1]
            lines = [
                {
                    "custom_id": str(number),
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {**body, "messages": [{"role": "user", "content": prompt}]},
                }
                for number, prompt in enumerate(prompts)
            ]
            arguments.input_file = str(place / "batch.jsonl")
            arguments.output_file = str(place / _BATCH_OUTPUT)
            Path(arguments.input_file).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            await client.reset_prefix_cache()
            start = time.perf_counter()
            await run_batch(client, arguments)
            connection.send(time.perf_counter() - start)


def _counted(seconds: float, place: Path, vocabulary: TagVocabulary, limits: Limits) -> dict[str, Any]:
    """Return the figures of a batch, read from its output."""
    tokens = incorrect = 0
    lines = (place / _BATCH_OUTPUT).read_text(encoding="utf-8").splitlines()
    for line in lines:
        body = json.loads(line)["response"]["body"]
        tokens += body["usage"]["completion_tokens"]
        text = body["choices"][0]["message"]["content"]
        incorrect += not parse_answer(text, vocabulary, limits).is_correct_set
    return {"seconds": seconds, "products": len(lines), "output_tokens": tokens, "incorrect": incorrect}


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["products"] / figures["seconds"])


def _ratio(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ratio of products/s, round by round, and its median."""
    ratios = [_rate(one) / _rate(other) for one, other in zip(ones, others, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "all": [round(ratio, 3) for ratio in ratios]}


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    rates = [_rate(figures) for figures in rounds]
    products = sum(figures["products"] for figures in rounds)
    return {
        "products_per_s": round(statistics.median(rates), 3),
        "products_per_s_all": [round(rate, 3) for rate in rates],
        "products": products,
        "output_tokens_per_product": round(sum(figures["output_tokens"] for figures in rounds) / products, 2),
        # Bare answers are not read.
        "incorrect": sum(figures["incorrect"] for figures in rounds) if "incorrect" in rounds[0] else None,
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = document["settings"]
    table = Table(
        title=f"{settings['products']} products of {settings['data']} in {settings['rounds']} rounds, "
        f"{settings['num_tags']} tags, {settings['model']} in {settings['dtype']}"
    )
    for column in ("", "products/s", "tokens/product", "incorrect", "catalogue against it"):
        table.add_column(column, justify="right" if column else "left")
    against = {"bare": "catalogue_to_bare", "run-batch": "catalogue_to_run_batch"}
    for name, figures in document["contestants"].items():
        ratio = f"{document['ratios'][against[name]]['median']:.3f}x" if name in against else ""
        table.add_row(
            name,
            f"{figures['products_per_s']:.2f}",
            f"{figures['output_tokens_per_product']:.1f}",
            "" if figures["incorrect"] is None else f"{figures['incorrect']} of {figures['products']}",
            ratio,
        )
    Console(stderr=True, width=120).print(table)
