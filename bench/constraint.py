"""Measures the constraint alone: compiling, loading, masks; beside xgrammar and llguidance, one thread.

    python -m bench constraint --short
    python -m bench constraint --sizes 1000 50000 --engines set xgrammar --out FILE

Engines: set (hangtag's constraint), xgrammar, guidance (llguidance); the last two get the JSON schema that the
vocabulary derives. All walk the same answers of 1 to 10 tags: a step accepts an answer's next token and computes
the mask over the model's tokens, the first step of an answer begins it. Each measurement has a process of its
own under a time limit; an engine that refuses, or does not finish, is reported as that.

The table goes to stderr; the last line of stdout is one JSON document with provenance, which --out also writes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hangtag.constraint import Limits, Spelling, TagConstraint, answer_schema
from hangtag.errors import HangtagError
from hangtag.manifest import provenance, write_json
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

SIZES = (200, 1_000, 10_000, 50_000, 200_000)
ENGINES = ("set", "xgrammar", "guidance")
MAX_TAGS, MAX_TOKENS = 10, 256
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def synthetic_vocabulary(num_tags: int, *, seed: int = 0) -> TagVocabulary:
    """Return `num_tags` invented product tags in eight facets, of which three are exclusive; deterministic.

    Word combinations ("quilted velvet jacket", "boots for hiking") and, for a third, invented brands and models.
    """
    draw = random.Random(seed)
    document = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
    words = {kind: text.split() for kind, text in document.items()}

    def brand() -> str:
        name = "".join(draw.choices(words["syllables"], k=draw.randint(2, 3))).capitalize()
        return f"{name} {draw.choice(words['things'])}" if draw.random() < 0.6 else f"{name} {draw.randint(1, 99)}"

    kinds: dict[str, Callable[[], str]] = {
        "quality": lambda: f"{draw.choice(words['qualities'])} {draw.choice(words['qualities'])}",
        "material": lambda: f"{draw.choice(words['qualities'])} {draw.choice(words['materials'])}",
        "type": lambda: f"{draw.choice(words['materials'])} {draw.choice(words['things'])}",
        "style": lambda: (
            f"{draw.choice(words['qualities'])} {draw.choice(words['materials'])} {draw.choice(words['things'])}"
        ),
        "use": lambda: f"{draw.choice(words['things'])} for {draw.choice(words['occasions'])}",
        "set": lambda: f"{' and '.join(draw.choices(words['things'], k=2))} {draw.choice(words['occasions'])} set",
        "brand": brand,
        "series": brand,
    }
    weights = (1, 1, 2, 8, 2, 6, 5, 5)
    facet_of: dict[str, str] = {}
    while len(facet_of) < num_tags:
        [facet] = draw.choices(list(kinds), weights)
        facet_of.setdefault(kinds[facet](), facet)
    limits = {name: FacetLimits(max=1) for name in ("quality", "brand", "series") if name in facet_of.values()}
    return TagVocabulary([Tag(name, facet) for name, facet in facet_of.items()], facets=limits)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", help=f"numbers of tags (default: {' '.join(map(str, SIZES))})"
    )
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="contestants (default: all)"
    )
    parser.add_argument("--model", default="smollm2-135m", help="whose tokenizer (default: %(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps to measure (default: 20000, short: 2000)")
    parser.add_argument(
        "--limit-s", type=float, default=300, metavar="S", help="for one measurement (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of tags and answers (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="200, 1000 and 10000 tags, fewer steps")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write; return the exit code."""
    sizes = arguments.sizes or (SIZES[:3] if arguments.short else SIZES)
    num_steps = arguments.steps or (2_000 if arguments.short else 20_000)
    rows = []
    for size in sizes:
        for engine in arguments.engines:
            print(f"{engine}: {size} tags", file=sys.stderr)
            job = (engine, arguments.model, size, num_steps, arguments.seed, arguments.limit_s)
            rows.append({"engine": engine, "num_tags": size, **_measured_apart(job, arguments.limit_s)})
    document = {
        "benchmark": "constraint",
        "settings": {"model": arguments.model, "steps": num_steps, "seed": arguments.seed, "max_tags": MAX_TAGS,
                     "max_tokens": MAX_TOKENS, "limit_s": arguments.limit_s, "threads": 1},
        "results": rows,
        "provenance": provenance(),
    }  # fmt: skip
    _print(document)
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, ensure_ascii=False))
    return 0 if all("failed" not in row for row in rows if row["engine"] == "set") else 1


class _Engine(Protocol):
    """A contestant: compiles once, then walks answers."""

    note: str

    def begin(self) -> None:
        """Begin an answer and compute its first mask."""
        ...

    def step(self, token: int) -> bool:
        """Accept a token and compute the next mask; False if the token is refused."""
        ...


class _Set:
    note = ""

    def __init__(self, vocabulary: TagVocabulary, tokenizer: Any, folder: str) -> None:
        from hangtag.language_model.piece_tokenizer import HFPieceTokenizer

        self.constraint = TagConstraint.compile(vocabulary, HFPieceTokenizer(tokenizer), cache=folder)
        self._limits = Limits(max_tags=MAX_TAGS)
        self._row = np.zeros(len(tokenizer), bool)

    def begin(self) -> None:
        self._state = self.constraint.start(max_tokens=MAX_TOKENS, limits=self._limits)
        self._mask()

    def step(self, token: int) -> bool:
        self.constraint.advance(self._state, token)
        self._mask()
        return True

    def _mask(self) -> None:
        self._row.fill(False)
        self._row[self.constraint.allowed(self._state)] = True


class _XGrammar:
    note = ""

    def __init__(self, vocabulary: TagVocabulary, tokenizer: Any) -> None:
        import xgrammar

        self._info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
        self._xgrammar = xgrammar
        self._schema = json.dumps(answer_schema(vocabulary, Limits(max_tags=MAX_TAGS)), ensure_ascii=False)

    def compile(self) -> None:
        compiler = self._xgrammar.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        self._grammar = compiler.compile_json_schema(self._schema, any_whitespace=False, separators=(",", ":"))
        self._bitmask = self._xgrammar.allocate_token_bitmask(1, self._info.vocab_size)

    def begin(self) -> None:
        self._matcher = self._xgrammar.GrammarMatcher(self._grammar)
        self._matcher.fill_next_token_bitmask(self._bitmask)

    def step(self, token: int) -> bool:
        is_accepted: bool = self._matcher.accept_token(token)
        if not self._matcher.is_terminated():
            self._matcher.fill_next_token_bitmask(self._bitmask)
        return is_accepted


class _Guidance:
    note = ""

    def __init__(self, vocabulary: TagVocabulary, tokenizer: Any) -> None:
        import llguidance
        import llguidance.hf
        import llguidance.numpy

        self._llguidance = llguidance
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))
        self._schema = answer_schema(vocabulary, Limits(max_tags=MAX_TAGS))

    def compile(self) -> None:
        error = self._compile()
        if "uniqueItems" in error:
            self.note = "without uniqueItems, which it refuses"
            self._schema["properties"]["tags"].pop("uniqueItems")
            error = self._compile()
        if error:
            raise RuntimeError(error)
        self._bitmask = self._llguidance.numpy.allocate_token_bitmask(1, self._tokenizer.vocab_size)

    def _compile(self) -> str:
        matcher = self._llguidance.LLMatcher
        defaults = {"whitespace_flexible": False}
        grammar = matcher.grammar_from_json_schema(json.dumps(self._schema, ensure_ascii=False), defaults=defaults)
        self._compiled = matcher(self._tokenizer, grammar)
        return str(self._compiled.get_error() or "")

    def begin(self) -> None:
        self._matcher = self._compiled.deep_copy()
        self._fill()

    def step(self, token: int) -> bool:
        is_accepted: bool = self._matcher.consume_token(token)
        self._fill()
        return is_accepted

    def _fill(self) -> None:
        self._llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bitmask)
        if error := self._matcher.get_error():
            raise RuntimeError(error)


def _measured_apart(job: tuple[Any, ...], limit_s: float) -> dict[str, Any]:
    """Return the figures of one engine at one size, or {"failed": why}; in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    process = context.Process(target=_work, args=(theirs, *job))
    process.start()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    theirs.close()
    figures: dict[str, Any] = {"failed": f"not done after {limit_s:g} s"}
    try:
        # A worker stops walking in time by itself; compiling cannot be interrupted from inside.
        if ours.poll(limit_s + 60):
            figures = ours.recv()
    except EOFError:
        process.join(10)
        figures = {"failed": f"its process ended with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return figures


def _work(
    connection: Connection, engine: str, model: str, size: int, num_steps: int, seed: int, limit_s: float
) -> None:
    try:
        connection.send(_figures(engine, model, size, num_steps, seed, limit_s))
    except Exception as error:  # whatever an engine raises is its result
        connection.send({"failed": f"{type(error).__name__}: {error}"[:200]})


def _figures(engine: str, model: str, size: int, num_steps: int, seed: int, limit_s: float) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
    from hangtag.models import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(model))
    vocabulary = synthetic_vocabulary(size, seed=seed)
    spelling = Spelling.from_text(vocabulary, HFPieceTokenizer(tokenizer))
    answers = _answers(vocabulary, spelling, seed)
    memory = _memory_mib()
    contestant: _Engine
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if engine == "set":
            start = time.perf_counter()
            contestant = _Set(vocabulary, tokenizer, folder)
            figures["compile_s"] = time.perf_counter() - start
            start = time.perf_counter()
            contestant = _Set(vocabulary, tokenizer, folder)
            figures["load_s"] = time.perf_counter() - start
        else:
            other = _XGrammar(vocabulary, tokenizer) if engine == "xgrammar" else _Guidance(vocabulary, tokenizer)
            contestant = other
            start = time.perf_counter()
            other.compile()
            figures["compile_s"] = time.perf_counter() - start
        if figures["compile_s"] > limit_s:
            return {**figures, "failed": f"compiled in {figures['compile_s']:.0f} s, over the limit"}
        steps = _walk(contestant, answers, num_steps, limit_s - figures["compile_s"])
    return {
        **figures,
        "steps": len(steps),
        "step_us": {
            "mean": float(steps.mean()),
            **{f"p{q}": float(np.percentile(steps, q)) for q in (50, 99)},
            "max": float(steps.max()),
        },
        "memory_mib": _memory_mib() - memory,
        **({"note": contestant.note} if contestant.note else {}),
    }


def _answers(vocabulary: TagVocabulary, spelling: Spelling, seed: int) -> Iterator[list[int]]:
    """Yield token ids of legal answers, endlessly: 1 to MAX_TAGS tags, each as likely as the other."""
    draw = random.Random(seed + 1)
    while True:
        held: dict[str, int] = {}
        positions: dict[int, None] = {}
        num_tags = draw.randint(1, MAX_TAGS)
        for position in draw.choices(range(len(vocabulary)), k=4 * num_tags):
            facet = vocabulary.tags[position].facet
            most = vocabulary.facets[facet].max
            if len(positions) < num_tags and position not in positions and held.get(facet, 0) != most:
                positions[position] = None
                held[facet] = held.get(facet, 0) + 1
        ids = spelling.answer(list(positions))
        if len(ids) <= MAX_TOKENS:
            yield ids


def _walk(
    engine: _Engine, answers: Iterator[list[int]], num_steps: int, limit_s: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the microseconds of each step, in order."""
    times: list[float] = []
    deadline = time.perf_counter() + limit_s
    clock = time.perf_counter
    while len(times) < num_steps and clock() < deadline:
        ids = next(answers)
        start = clock()
        engine.begin()
        times.append(clock() - start)
        for token in ids[:-1]:
            start = clock()
            is_accepted = engine.step(token)
            times.append(clock() - start)
            if not is_accepted:
                raise RuntimeError(f"refuses token {token} of a legal answer")
    return np.array(times) * 1e6


def _memory_mib() -> float:
    """Return this process's resident memory (Linux), elsewhere its highest value so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"constraint: {document['settings']['steps']} steps an engine, one thread")
    columns = ("tags", "engine", "compile s", "load s", "step mean us", "p50", "p99", "max", "memory MiB", "")
    for column in columns:
        table.add_column(column, justify="left" if column in ("engine", "") else "right")
    for row in document["results"]:
        step = row.get("step_us", {})
        figures = [row.get("compile_s"), row.get("load_s"), *(step.get(k) for k in ("mean", "p50", "p99", "max"))]
        digits = (3, 3, 1, 1, 1, 0)
        shown = ["" if x is None else f"{x:,.{d}f}" for x, d in zip(figures, digits, strict=True)]
        memory = f"{row['memory_mib']:,.0f}" if "memory_mib" in row else ""
        remark = f"failed: {row['failed']}" if "failed" in row else row.get("note", "")
        table.add_row(f"{row['num_tags']:,}", row["engine"], *shown, memory, remark)
    Console(stderr=True, width=150).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except HangtagError as error:
        print(f"bench.constraint: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
