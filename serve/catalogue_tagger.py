"""The tagger of a catalogue run: named from the options at once, loaded when the first product needs it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hangtag.bulk.context import named_ingredients, prompted_ingredients, run_ingredients
from hangtag.catalog import load_labelled
from hangtag.cli import choice_from_arguments
from hangtag.errors import RecipeError
from hangtag.loading import DEFAULT_SHOTS, EngineName, load_run_tagger, read_run
from hangtag.product import Product
from hangtag.prompt import Budget
from hangtag.tagging import Tagger, Tagging, Usage
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.taggers.generative import GenerativeTagger

ENGINES = ("vllm", "transformers", "ray", "null")
MAX_TOKENS = 256
_BATCH = 256
# What a run was trained with, and so brings itself.
_OF_RUNS = ("vocabulary", "examples", "shots", "max_tags", "min_tags", "with_parents", "prompt", "endpoint")
# What a server's tagger has its own way of.
_OF_SERVERS = ("max_tags", "min_tags", "with_parents", "prompt")

Stream = Callable[[Iterable[Product]], Iterator[Tagging]]


@dataclass(frozen=True, slots=True)
class CatalogueTagger:
    """What gives the tags. `ingredients` decide a tagging beside the product; `load` makes it ready."""

    name: str
    vocabulary: TagVocabulary
    ingredients: dict[str, Any]
    load: Callable[[], tuple[Stream, Usage]]


class LazyStream:
    """The stream of a `CatalogueTagger`, loaded at the first product; `usage` counts tokens once it is."""

    def __init__(self, tagger: CatalogueTagger) -> None:
        self._tagger = tagger
        self.usage = Usage()

    def __call__(self, products: Iterable[Product]) -> Iterator[Tagging]:
        """Yield one tagging a product, in order."""
        iterator = iter(products)
        first = next(iterator, None)
        if first is None:
            return
        stream, self.usage = self._tagger.load()
        yield from stream(chain([first], iterator))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose where tags come from, beside those of a prompted tagger."""
    group = parser.add_argument_group("where tags come from (instead of --model with --vocabulary)")
    group.add_argument(
        "--run", type=Path, metavar="RUN", help="a fine-tuned run directory; it brings its vocabulary"
    )
    group.add_argument(
        "--weights",
        choices=("model", "model-int8"),
        default="model",
        help="which of the run's exported weights (default: %(default)s)",
    )
    group.add_argument(
        "--endpoint",
        metavar="URL",
        help="an OpenAI-compatible server, http://HOST:PORT/v1; --model names its model",
    )
    group.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="the environment variable with the endpoint's key (default: %(default)s)",
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="vllm",
        help="vllm; transformers; ray: vllm in several workers; null: no model, tags from a hash, to measure "
        "everything else (default: %(default)s)",
    )
    group.add_argument(
        "--workers", type=int, default=2, metavar="N", help="workers of --engine ray (default: %(default)s)"
    )
    group.add_argument(
        "--worker-engine",
        choices=("vllm", "transformers", "null"),
        default="vllm",
        help="what each worker of --engine ray runs (default: %(default)s)",
    )
    group.add_argument(
        "--gpus-per-worker",
        type=float,
        default=0,
        metavar="N",
        help="GPUs a Ray worker takes (default: %(default)s)",
    )


def tagger_from_arguments(arguments: argparse.Namespace) -> CatalogueTagger:
    """Return the tagger that the options describe.

    Raises:
        HangtagError: options contradict each other, or a file, model or run is refused.
    """
    if arguments.run is not None:
        _refuse(arguments, _OF_RUNS, "--run, which brings its own")
        return _of_run(arguments)
    if not arguments.vocabulary:
        raise RecipeError("the tags are missing: give --vocabulary F, or --run RUN for a fine-tuned tagger")
    if arguments.endpoint:
        _refuse(arguments, _OF_SERVERS, "--endpoint, which takes the defaults")
        return _of_endpoint(arguments)
    if arguments.engine == "null" or (arguments.engine == "ray" and arguments.worker_engine == "null"):
        return _null(arguments)
    return _prompted(arguments)


def _refuse(arguments: argparse.Namespace, names: Sequence[str], beside: str) -> None:
    for name in names:
        if getattr(arguments, name):
            raise RecipeError(f"--{name.replace('_', '-')} cannot be combined with {beside}")


def load_stream(arguments: argparse.Namespace, engine: str) -> tuple[Stream, Usage]:
    """Return the loaded stream of options that name no endpoint, in this process, whatever `--engine` says."""
    if engine == "null" and arguments.run is None:
        from hangtag.taggers.null import NullTagger

        return NullTagger(TagVocabulary.from_path(arguments.vocabulary)).stream, Usage()
    tagger = load_generative(arguments, "transformers" if engine == "transformers" else "vllm")
    return tagger.stream, tagger.usage


def load_generative(arguments: argparse.Namespace, engine: EngineName) -> GenerativeTagger:
    """Return the loaded tagger of options that name a language model or a run."""
    if arguments.run is None:
        return choice_from_arguments(arguments).load(engine)
    return load_run_tagger(arguments.run, engine=engine, weights=arguments.weights, decoding=arguments.decoding)


def _loader(arguments: argparse.Namespace) -> Callable[[], tuple[Stream, Usage]]:
    if arguments.engine != "ray":
        return lambda: load_stream(arguments, arguments.engine)

    def load() -> tuple[Stream, Usage]:
        from hangtag.taggers.ray_workers import RayWorkers

        if arguments.workers < 1:
            raise RecipeError(f"--workers {arguments.workers}: expected at least 1")
        options = argparse.Namespace(**vars(arguments))
        workers = RayWorkers(
            lambda: load_stream(options, options.worker_engine),
            num_workers=arguments.workers,
            gpus_per_worker=arguments.gpus_per_worker,
        )
        return workers.stream, workers.usage

    return load


def _prompted(arguments: argparse.Namespace) -> CatalogueTagger:
    choice = choice_from_arguments(arguments)
    ingredients = prompted_ingredients(
        model=choice.model,
        vocabulary=choice.vocabulary,
        limits=choice.limits,
        template=choice.template,
        shots=choice.shots,
        examples=arguments.examples,
        decoding=choice.decoding,
        max_tokens=MAX_TOKENS,
        budget=repr(Budget()),
    )
    return CatalogueTagger(choice.model, choice.vocabulary, ingredients, _loader(arguments))


def _null(arguments: argparse.Namespace) -> CatalogueTagger:
    vocabulary = TagVocabulary.from_path(arguments.vocabulary)
    return CatalogueTagger("null", vocabulary, named_ingredients("null", vocabulary), _loader(arguments))


def _of_endpoint(arguments: argparse.Namespace) -> CatalogueTagger:
    vocabulary = TagVocabulary.from_path(arguments.vocabulary)
    examples = load_labelled(arguments.examples) if arguments.examples else ()
    shots = min(DEFAULT_SHOTS, len(examples)) if arguments.shots is None else arguments.shots

    def load() -> tuple[Stream, Usage]:
        from hangtag.taggers.http_client import HttpTagger

        tagger = HttpTagger(
            vocabulary,
            url=arguments.endpoint,
            model=arguments.model,
            key=os.environ.get(arguments.key_variable),
            examples=examples,
            shots=shots,
            concurrency=32,
            max_tokens=MAX_TOKENS,
        )
        return in_batches(tagger), tagger.usage

    ingredients = named_ingredients(arguments.model, vocabulary, examples=arguments.examples, shots=shots)
    return CatalogueTagger(arguments.model, vocabulary, ingredients, load)


def _of_run(arguments: argparse.Namespace) -> CatalogueTagger:
    run = read_run(arguments.run)
    ingredients = run_ingredients(run, weights=arguments.weights, decoding=arguments.decoding)
    return CatalogueTagger(arguments.run.resolve().name, run.vocabulary, ingredients, _loader(arguments))


def in_batches(tagger: Tagger) -> Stream:
    """Return the stream of a tagger that takes whole batches."""

    def stream(products: Iterable[Product]) -> Iterator[Tagging]:
        iterator = iter(products)
        while batch := list(islice(iterator, _BATCH)):
            yield from tagger.tag(batch)

    return stream
