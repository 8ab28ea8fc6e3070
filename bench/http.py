"""Latency and throughput of a running endpoint under load, beside a plain vLLM under a JSON schema.

    python -m serve.server --vocabulary tags.json --port 8000
    python -m bench http --vocabulary tags.json --hangtag http://127.0.0.1:8000/v1
    python -m bench http --start --short

Contestants: hangtag (the endpoint: a product as the user message) and plain (`vllm serve` on the same model: the
same prompt, written here, with a JSON schema of the vocabulary). Two kinds of load: closed, N clients that ask one
after the other; open, requests at a rate with random (Poisson) intervals, answered or not. Contestants take turns,
so that a busy machine slows both. All answers are streamed; a request's latency ends with its last byte, its time
to first token with the first text. `--start` starts both servers on this machine. Answers are checked: a wrong
one is no JSON list, or holds unknown or repeated tags or more of a facet than the vocabulary allows. An open-loop
rate given as x1.5 means that multiple of what closed-loop clients got from the same contestant.

The table goes to stderr; the last line of stdout is one JSON document with provenance, which --out also writes;
--plot draws latency against load.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.catalogue.labelled import load_dataset
from hangtag.constraint import Limits, answer_schema, parse_answer
from hangtag.errors import EngineError, RecipeError
from hangtag.language_model.examples import default_limits
from hangtag.language_model.prompt import Prompter
from hangtag.language_model.shortlist import NearestVocabulary
from hangtag.loading import DEFAULT_MODEL
from hangtag.manifest import provenance, write_json
from hangtag.product import Product
from hangtag.sample import sample_folder
from hangtag.vocabulary import TagVocabulary

ROOT = Path(__file__).resolve().parent.parent
_START_S = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.add_argument("--hangtag", metavar="URL", help="a running endpoint, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--plain", metavar="URL", help="a running plain vLLM on the same model, called plain")
    parser.add_argument("--start", action="store_true", help="start both servers here instead")
    parser.add_argument(
        "--key-variable", default="HANGTAG_KEY", metavar="V", help="with the endpoint's key (%(default)s)"
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="F", help="the endpoint's vocabulary (default: the sample's)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="products: a dataset's test split (default: the sample)"
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="M", help="the model of both (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tags", type=int, default=8, metavar="N", help="tags an answer (default: %(default)s)"
    )
    parser.add_argument(
        "--clients",
        type=int,
        nargs="*",
        default=[1, 4, 16, 64],
        metavar="N",
        help="closed loop (default: 1 4 16 64)",
    )
    parser.add_argument(
        "--rates", nargs="*", default=["x0.25", "x0.5", "x0.75", "x1", "x1.5", "x3"], metavar="R",
        help="open loop: requests/s, or xM times what closed-loop clients got (default: x0.25 to x3)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=30, metavar="S", help="for each load (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of products and intervals (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="1 and 8 clients, rates x0.5 and x2, 8 seconds each")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw latency against load, .svg or .png")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code."""
    if arguments.short:
        arguments.clients, arguments.rates, arguments.seconds = [1, 8], ["x0.5", "x2"], 8.0
    rates = [_rate(text) for text in arguments.rates]
    if not arguments.start and not arguments.hangtag:
        raise RecipeError("give a running endpoint with --hangtag URL, or let --start start both servers")
    if any(number < 1 for number in arguments.clients) or arguments.seconds <= 0:
        raise RecipeError("--clients needs numbers from 1, --seconds a number above 0")
    data = load_dataset(arguments.data or sample_folder(), splits=("test",))
    vocabulary = TagVocabulary.from_path(arguments.vocabulary) if arguments.vocabulary else data.vocabulary
    limits = default_limits(vocabulary, max_tags=arguments.max_tags)
    with contextlib.ExitStack() as stack:
        urls = {"hangtag": arguments.hangtag, "plain": arguments.plain}
        if arguments.start:
            urls = stack.enter_context(_started(arguments, vocabulary))
        contestants = [
            Contestant(name, url, _requests(name, arguments, vocabulary, limits, data.test), vocabulary, limits)
            for name, url in urls.items()
            if url
        ]
        measured = asyncio.run(_measure(contestants, arguments, rates))
    document = {
        "benchmark": "http",
        "settings": {
            "data": data.folder.name,
            "data_sha256": data.digest,
            "vocabulary": vocabulary.fingerprint,
            "num_tags": len(vocabulary),
            **{
                name: getattr(arguments, name)
                for name in ("model", "max_tags", "seconds", "seed", "clients", "rates")
            },
        },
        "contestants": measured,
        "provenance": provenance(),
    }
    _print(document)
    if arguments.out:
        write_json(arguments.out, document)
    if arguments.plot:
        plot(document, arguments.plot)
    print(json.dumps(document, ensure_ascii=False))
    return 0


def _rate(text: str) -> Callable[[float], float]:
    try:
        number = float(text.removeprefix("x"))
    except ValueError:
        number = 0.0
    if not number > 0:
        raise RecipeError(f"--rates: got {text!r}, expected requests/s, or x and a factor")
    return (lambda capacity: number * capacity) if text.startswith("x") else (lambda _: number)


@dataclass
class Request:
    """One request's fate: times in seconds from its sending; `status` 0 where no answer came."""

    status: int = 0
    first_s: float | None = None
    total_s: float = 0.0
    text: str = ""


@dataclass
class Contestant:
    """A server and what it is asked."""

    name: str
    url: str
    bodies: Sequence[dict[str, Any]]
    vocabulary: TagVocabulary
    limits: Limits
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, client: Any, number: int) -> Request:
        """Send one streamed request and read its answer to the end."""
        import httpx

        outcome, start = Request(), time.perf_counter()
        body = self.bodies[number % len(self.bodies)]
        try:
            async with client.stream(
                "POST", f"{self.url}/chat/completions", json=body, headers=self.headers
            ) as response:
                outcome.status = response.status_code
                async for line in response.aiter_lines():
                    text = _text_in(line)
                    if text and outcome.first_s is None:
                        outcome.first_s = time.perf_counter() - start
                    outcome.text += text
        except httpx.HTTPError:
            outcome.status = 0
        outcome.total_s = time.perf_counter() - start
        return outcome


def _text_in(line: str) -> str:
    data = line.removeprefix("data: ")
    if not line.startswith("data: ") or data == "[DONE]":
        return ""
    choices = json.loads(data).get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def _requests(
    name: str,
    arguments: argparse.Namespace,
    vocabulary: TagVocabulary,
    limits: Limits,
    products: Sequence[Product],
) -> list[dict[str, Any]]:
    """Return the bodies of a contestant's requests; both say the same to the model."""
    shared = {"model": name, "stream": True}
    if name == "hangtag":
        return [
            shared
            | {
                "messages": [{"role": "user", "content": product.model_dump_json(exclude={"tags"})}],
                "vllm_xargs": {"hangtag_max_tags": arguments.max_tags},
            }
            for product in products
        ]
    from hangtag.endpoint.vocabularies import load_tokenizer
    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
    from hangtag.models import resolve_model

    tokenizer = HFPieceTokenizer(load_tokenizer(resolve_model(arguments.model)))
    schema = answer_schema(vocabulary, limits)
    # xgrammar passes over it; repeats are counted.
    del schema["properties"]["tags"]["uniqueItems"]
    prompter = Prompter(vocabulary, tokenizer, nearest_tags=NearestVocabulary(vocabulary))
    output = {"type": "json_schema", "json_schema": {"name": "tagging", "schema": schema, "strict": True}}
    return [
        shared | {"messages": list(chat.messages), "temperature": 0, "max_tokens": 256, "response_format": output}
        for chat in prompter.prompts(products)
    ]


async def _measure(
    contestants: Sequence[Contestant], arguments: argparse.Namespace, rates: Sequence[Callable[[float], float]]
) -> dict[str, Any]:
    import httpx

    key = os.environ.get(arguments.key_variable)
    results: dict[str, Any] = {one.name: {"closed": [], "open": []} for one in contestants}
    limits = httpx.Limits(max_connections=None)
    total = len(contestants) * (len(arguments.clients) + len(rates))
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        for one in contestants:
            one.headers = {"authorization": f"Bearer {key}"} if key and one.name == "hangtag" else {}
            # What is compiled or cached at the first request is no part of a load.
            first = [await one.ask(client, number) for number in range(2)]
            if any(outcome.status != 200 for outcome in first):
                raise EngineError(
                    f"{one.url}: answered {first[-1].status}; is the server running, and the key right?"
                )
        with program.progress("measuring", "load", total=total) as bar:
            for num_clients in arguments.clients:
                for one in contestants:
                    start = time.perf_counter()
                    outcomes = await _closed(one, client, num_clients, arguments.seconds)
                    seconds = time.perf_counter() - start
                    results[one.name]["closed"].append(
                        {"clients": num_clients, **_summary(one, outcomes, seconds)}
                    )
                    bar.update()
            for rate in rates:
                for one in contestants:
                    capacity = max((row["answers_per_s"] for row in results[one.name]["closed"]), default=1.0)
                    start = time.perf_counter()
                    outcomes = await _open(one, client, rate(capacity), arguments.seconds, arguments.seed)
                    seconds = time.perf_counter() - start
                    row = {"rate": round(rate(capacity), 3), **_summary(one, outcomes, seconds)}
                    results[one.name]["open"].append(row)
                    bar.update()
    return results


async def _closed(one: Contestant, client: Any, num_clients: int, seconds: float) -> list[Request]:
    outcomes: list[Request] = []
    until = time.perf_counter() + seconds
    numbers = iter(range(1 << 40))

    async def ask() -> None:
        while time.perf_counter() < until:
            outcomes.append(await one.ask(client, next(numbers)))

    await asyncio.gather(*(ask() for _ in range(num_clients)))
    return outcomes


async def _open(one: Contestant, client: Any, rate: float, seconds: float, seed: int) -> list[Request]:
    tasks: list[asyncio.Task[Request]] = []
    async for number in _arrivals(rate, seconds, seed):
        tasks.append(asyncio.create_task(one.ask(client, number)))
    return list(await asyncio.gather(*tasks))


async def _arrivals(rate: float, seconds: float, seed: int) -> AsyncIterator[int]:
    """Yield numbers at random (Poisson) times; a late one is not waited for, so that the rate holds."""
    draw, start, at, number = random.Random(seed), time.perf_counter(), 0.0, 0
    while (at := at + draw.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        yield number
        number += 1


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value that `share` of the values do not exceed (the nearest of them); None of none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def _summary(one: Contestant, outcomes: Sequence[Request], seconds: float) -> dict[str, Any]:
    answered = [outcome for outcome in outcomes if outcome.status == 200]
    statuses = Counter(outcome.status for outcome in outcomes)
    totals = [outcome.total_s for outcome in answered]
    firsts = [outcome.first_s for outcome in answered if outcome.first_s is not None]
    return {
        "requests": len(outcomes),
        "answers": len(answered),
        "answers_per_s": round(len(answered) / seconds, 3),
        "shed": statuses[429],
        "errors": len(outcomes) - len(answered) - statuses[429],
        "incorrect": sum(
            not parse_answer(outcome.text, one.vocabulary, one.limits).is_correct_set for outcome in answered
        ),
        **{f"p{p}_s": _rounded(quantile(totals, p / 100)) for p in (50, 95, 99)},
        **{f"first_p{p}_s": _rounded(quantile(firsts, p / 100)) for p in (50, 95)},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


@contextlib.contextmanager
def _started(arguments: argparse.Namespace, vocabulary: TagVocabulary) -> Iterator[dict[str, str]]:
    """Start both servers on this machine with the same model, number type, lengths and batch."""
    from hangtag.engines.hardware import probe_hardware
    from hangtag.models import resolve_model
    from serve.server import endpoint_settings, parse_arguments
    from serve.vllm_start import Weights, child_environment, free_port, vllm_command

    hardware = probe_hardware()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vocabulary.json"
        vocabulary.save(file)
        options = ["--vocabulary", str(file), "--model", arguments.model, "--dtype", hardware.dtype]
        ports = [free_port("127.0.0.1", 0) for _ in range(2)]
        ours, _ = parse_arguments([*options, "--port", str(ports[0])])
        weights = Weights(resolve_model(arguments.model))
        settings = endpoint_settings(ours, weights, is_cpu=hardware.device == "cpu")
        plain = vllm_command(ours, weights, ("plain",), ports[1], hardware, [], settings.max_model_len)
        plain = plain[: plain.index("--middleware")]
        commands = {
            "hangtag": [sys.executable, "-m", "serve.server", *options, "--port", str(ports[0])],
            "plain": plain,
        }
        environment = child_environment(hardware.device, {})
        processes = {
            name: subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for name, command in commands.items()
        }
        try:
            for process, port in zip(processes.values(), ports, strict=True):
                _wait(process, f"http://127.0.0.1:{port}/health")
            yield {name: f"http://127.0.0.1:{port}/v1" for name, port in zip(processes, ports, strict=True)}
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                try:
                    process.wait(90)
                except subprocess.TimeoutExpired:
                    process.kill()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.5)
    raise EngineError(f"{url}: the server did not come up; start it by hand to see why, and give its address")


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw p50 and p99 latency against answers/s (closed) and offered requests/s (open)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (closed, opened) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for number, (name, loads) in enumerate(document["contestants"].items()):
        colour = f"C{number}"
        for axes, rows, column in ((closed, loads["closed"], "answers_per_s"), (opened, loads["open"], "rate")):
            for quantile_name, style in (("p50_s", "-"), ("p99_s", "--")):
                axes.plot(
                    [row[column] for row in rows], [row[quantile_name] for row in rows], style, color=colour,
                    marker=".", label=f"{name} {quantile_name[:-2]}",
                )  # fmt: skip
    closed.set(xlabel="answers/s (closed loop)", ylabel="latency, s", yscale="log")
    opened.set(xlabel="requests/s offered (open loop)")
    for axes in (closed, opened):
        axes.grid(alpha=0.3)
    closed.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = document["settings"]
    table = Table(title=f"{settings['num_tags']} tags, products of {settings['data']}, {settings['model']}")
    for column in ("", "load", "answers/s", "p50 s", "p95 s", "p99 s", "first p50 s", "answers", "shed", "errors",
                   "incorrect"):  # fmt: skip
        table.add_column(column, justify="right" if column else "left")
    for name, loads in document["contestants"].items():
        for kind, column in (("closed", "clients"), ("open", "rate")):
            for row in loads[kind]:
                load = f"{row[column]} clients" if kind == "closed" else f"{row[column]}/s"
                cells = [row[key] for key in ("answers_per_s", "p50_s", "p95_s", "p99_s", "first_p50_s")]
                counts = [row[key] for key in ("answers", "shed", "errors", "incorrect")]
                shown = ["" if cell is None else f"{cell:.2f}" for cell in cells]
                table.add_row(name, load, *shown, *map(str, counts))
    Console(stderr=True, width=130).print(table)
