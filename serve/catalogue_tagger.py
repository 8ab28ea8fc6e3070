"""The tagger of a catalogue run: named from the options at once, loaded when the first product needs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from hangtag.cli import tagger_options
from hangtag.errors import RecipeError
from hangtag.product import Product
from hangtag.spec import FineTuned, Null, Prompted, TaggerSpec
from hangtag.tagger_options import TaggerOptions
from hangtag.tagging import Stream, Tagging, Usage, stream_of

ENGINES = ("vllm", "transformers", "ray", "null")


@dataclass(frozen=True, slots=True)
class CatalogueTagger:
    """What gives the tags: its description, and how it is made ready on this machine or several."""

    spec: TaggerSpec
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


def described(arguments: argparse.Namespace) -> CatalogueTagger:
    """Return the tagger that the options of a catalogue run describe.

    Raises:
        HangtagError: options contradict each other, or a file, model or run is refused.
    """
    options = tagger_options(arguments)
    engine = arguments.engine
    if engine != "ray":
        spec = read_spec(options, engine)
        return CatalogueTagger(spec, lambda: stream_of(spec.load(engine)))
    if arguments.workers < 1:
        raise RecipeError(f"--workers {arguments.workers}: expected at least 1")
    worker_engine, num_workers, gpus = arguments.worker_engine, arguments.workers, arguments.gpus_per_worker

    def load() -> tuple[Stream, Usage]:
        from hangtag.remote.ray_workers import RayWorkers

        # A worker may stand on another machine: it reads the files itself.
        workers = RayWorkers(
            lambda: stream_of(read_spec(options, worker_engine).load(worker_engine)),
            num_workers=num_workers,
            gpus_per_worker=gpus,
        )
        return workers.stream, workers.usage

    spec = read_spec(options, worker_engine)
    # One server is one queue, however many workers there might be.
    return CatalogueTagger(spec, (lambda: stream_of(spec.load())) if options.endpoint else load)


def read_spec(options: TaggerOptions, engine: str) -> TaggerSpec:
    """Return what the options describe; the engine `null` takes the place of a prompted model."""
    spec = options.read()
    if engine != "null":
        return spec
    if isinstance(spec.source, FineTuned):
        raise RecipeError("--engine null cannot be combined with --run, which brings its own model")
    return replace(spec, source=Null()) if isinstance(spec.source, Prompted) else spec
