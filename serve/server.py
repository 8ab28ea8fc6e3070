"""Serve a tagger as an OpenAI-compatible endpoint that only ever answers with correct sets of tags.

    python -m serve.server --vocabulary tags.json --examples labelled.jsonl
    python -m serve.server --run runs/shop --port 8000 --keys keys.txt --host 0.0.0.0

Starts vLLM's server in a process of its own, set up from the run or the options; flags that are not known here go
on to vLLM. A client sends a product as the one user message, or products to /v1/tag; see docs/serving.md. Once
requests are taken, stdout has the address and an example; logs go to stderr. SIGTERM: what is being answered is
finished, up to --grace seconds, then the server ends. SIGHUP: the keys are read again. Exit codes: 0 stopped,
1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.engines.vllm_offline import MAX_IN_FLIGHT, MAX_MODEL_LEN
from hangtag.errors import EngineError, HangtagError, RecipeError
from hangtag.loading import DEFAULT_MODEL
from serve.vllm_process import Child, Signals
from serve.vllm_start import (
    NAME,
    Weights,
    check_flags,
    check_memory,
    child_environment,
    choose_weights,
    free_port,
    model_length,
    vllm_command,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments, rest = parse_arguments(argv)

    def work() -> int:
        check_flags(rest)
        return serve(arguments, rest)

    return program.run("serve.server", work)


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the flags that go on to vLLM."""
    return _parser().parse_known_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = program.parser("python -m serve.server", __doc__, allow_abbrev=False)
    what = parser.add_argument_group("what is served")
    what.add_argument("--run", metavar="DIR", help="a fine-tuned run: brings model, vocabulary and prompt")
    what.add_argument(
        "--weights", metavar="NAME", help="the run's folder of weights (default: model; adapter where it is alone)"
    )
    what.add_argument(
        "--model",
        metavar="M",
        help=f"without --run: a fetched model, a folder or a hub id (default: {DEFAULT_MODEL})",
    )
    what.add_argument(
        "--vocabulary",
        action="append",
        default=[],
        metavar="[NAME=]F",
        help="the tags: JSON, CSV, or one a line; several times for several vocabularies, of which requests "
        "choose by name (default name: the file's); the first is the default, with --run the run's own (default)",
    )
    what.add_argument(
        "--examples",
        action="append",
        default=[],
        metavar="[NAME=]F",
        help="labelled products for few-shot prompts",
    )
    what.add_argument(
        "--shots", type=int, metavar="K", help="examples in each prompt (default: 4 with --examples)"
    )
    what.add_argument("--prompt", metavar="F", help="a prompt template (default: prompts/*_v1.jinja)")
    what.add_argument("--min-tags", type=int, default=0, metavar="N", help="fewest tags (default: %(default)s)")
    what.add_argument("--max-tags", type=int, metavar="N", help="most tags (default: as an example holds, else 8)")
    what.add_argument(
        "--evidence", default="default", metavar="E", help="as in hangtag tag: default, none, or a file of weights"
    )
    what.add_argument("--with-parents", action="store_true", help="a tag's parents come with it")
    what.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="tokens of a whole answer (default: %(default)s)"
    )
    what.add_argument(
        "--threshold", type=float, default=0.5, metavar="C",
        help="/v1/tag accepts taggings whose every confidence reaches it (default: %(default)s)",
    )  # fmt: skip
    doors = parser.add_argument_group("doors")
    doors.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default: %(default)s)"
    )
    doors.add_argument(
        "--port", type=int, default=8000, metavar="P", help="default: %(default)s; 0 takes a free one"
    )
    doors.add_argument(
        "--keys", type=Path, metavar="F", help="file of keys, a line each: NAME KEY [PRODUCTS-A-MINUTE]"
    )
    doors.add_argument(
        "--open-without-key", action="store_true", help="listen beyond this machine although no key is needed"
    )
    doors.add_argument(
        "--allow-own-formats",
        action="store_true",
        help="hand a request whose response_format does not admit tags on to vLLM, without prompt and constraint "
        "(default: it is refused)",
    )
    doors.add_argument(
        "--max-body-mib", type=float, default=8, metavar="N", help="largest request (default: %(default)s)"
    )
    doors.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="seconds for a request (default: %(default)s)"
    )
    doors.add_argument(
        "--max-in-flight", type=int, default=128, metavar="N",
        help="products waiting or worked on before requests get 429 (default: %(default)s)",
    )  # fmt: skip
    doors.add_argument(
        "--log-products", nargs="?", const="masked", default="never", choices=("masked", "presidio"),
        help="log product text, e-mail addresses and phone numbers masked, names too by presidio (default: never)",
    )  # fmt: skip
    engine = parser.add_argument_group("engine; every other flag goes on to vLLM")
    engine.add_argument("--dtype", metavar="T", help="float32, bfloat16, … (default: the faster by a probe)")
    engine.add_argument(
        "--max-model-len", type=int, metavar="N", help=f"tokens of prompt and answer (default: {MAX_MODEL_LEN})"
    )
    engine.add_argument(
        "--max-num-seqs", type=int, default=MAX_IN_FLIGHT, metavar="N",
        help="products worked on at once (default: %(default)s)",
    )  # fmt: skip
    engine.add_argument(
        "--grace", type=float, default=60, metavar="S", help="seconds to finish on SIGTERM (default: %(default)s)"
    )
    engine.add_argument("--verbose", action="store_true", help="show all that vLLM says while it starts")
    return parser


def serve(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Start vLLM, wait until it ends, and return the exit code."""
    from hangtag.config import load_recipe
    from hangtag.endpoint.settings import KEYS, REGISTER, SETTINGS, SETTINGS_VARIABLE, VocabularySettings
    from hangtag.endpoint.vocabularies import Vocabularies
    from hangtag.engines.hardware import probe_hardware
    from hangtag.engines.vllm_arguments import REGISTER_VARIABLE
    from hangtag.manifest import write_json

    check_address(arguments)
    keys = read_keys(arguments)
    weights = choose_weights(arguments)
    # A wrong file is refused before anything slow.
    specs = [load_recipe(None, VocabularySettings, entry).read() for entry in vocabulary_settings(arguments)]
    port = free_port(arguments.host, arguments.port)
    hardware = probe_hardware()
    settings = endpoint_settings(arguments, weights, is_cpu=hardware.device == "cpu")
    vocabularies = Vocabularies.load(settings, specs)
    folder = Path(tempfile.mkdtemp(prefix="hangtag-server-"))
    try:
        write_json(folder / SETTINGS, settings.model_dump(mode="json"))
        if keys is not None:
            write_json(folder / KEYS, keys)
        write_json(
            folder / REGISTER,
            {name: str(served.constraint.path) for name, served in vocabularies.by_name.items()},
        )
        if hardware.device == "cpu":
            check_memory(weights.model)
        environment = child_environment(
            hardware.device, {SETTINGS_VARIABLE: str(folder), REGISTER_VARIABLE: str(folder / REGISTER)}
        )
        command = vllm_command(arguments, weights, settings.names, port, hardware, rest, settings.max_model_len)
        print(f"serve.server: starting vLLM with {weights.model} in {hardware.dtype}", file=sys.stderr)
        child = Child(command, environment, is_verbose=arguments.verbose)
        signals = Signals(lambda: replace_keys(arguments, folder), child.kill)
        address = _address(arguments.host, port)
        child.wait_until_ready(f"http://{address}/health", signals)
        if not signals.is_asked:
            print(ready_line(f"http://{address}", settings.names[0], needs_key=keys is not None), flush=True)
        child.wait_until_asked(signals)
        left = child.drain(folder, arguments.grace)
        if left:
            raise EngineError(f"{left} requests were not answered within --grace {arguments.grace:g} s")
        return 0
    finally:
        vocabularies.close()
        shutil.rmtree(folder, ignore_errors=True)


def check_address(arguments: argparse.Namespace) -> None:
    """Return if the endpoint may listen there. Raises RecipeError: it would be open to everybody."""
    if os.environ.get("VLLM_API_KEY"):
        raise RecipeError("VLLM_API_KEY is set, but vLLM's own key leaves routes open; unset it and use --keys")
    if arguments.keys is not None or arguments.open_without_key:
        return
    host = arguments.host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        raise RecipeError(
            f"--host {host}: beyond this machine a key is needed; give --keys FILE, or --open-without-key"
        )


def read_keys(arguments: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Return the digests of the keys in force, None if none is needed."""
    from hangtag.endpoint.doors import read_key_file

    if arguments.keys is None:
        return None
    return [entry.model_dump() for entry in read_key_file(arguments.keys)]


def replace_keys(arguments: argparse.Namespace, folder: Path) -> None:
    """Put the keys in the file in force, if they are right; says which it did."""
    from hangtag.endpoint.settings import KEYS
    from hangtag.manifest import write_json

    try:
        keys = read_keys(arguments)
    except HangtagError as error:
        print(f"serve.server: the keys stay as they are: {error}", file=sys.stderr, flush=True)
        return
    if keys is not None:
        write_json(folder / KEYS, keys)
        print(f"serve.server: {len(keys)} keys are in force", file=sys.stderr, flush=True)


def endpoint_settings(arguments: argparse.Namespace, weights: Weights, *, is_cpu: bool) -> Any:
    """Return the settings that the serving process reads.

    Raises:
        RecipeError: an option is refused.
    """
    from hangtag.config import load_recipe
    from hangtag.endpoint.settings import EndpointSettings

    names = [NAME]
    if arguments.run is not None:
        names.append(f"{NAME}-{Path(arguments.run).resolve().name}")
    else:
        names.append(f"{NAME}-{Path(weights.model).name}")
    return load_recipe(
        None,
        EndpointSettings,
        {
            "model": weights.model,
            "tokenizer": weights.tokenizer,
            "names": names,
            "is_cpu": is_cpu,
            "max_model_len": model_length(weights.model, arguments.max_model_len),
            "vocabularies": vocabulary_settings(arguments),
            "threshold": arguments.threshold,
            "needs_key": arguments.keys is not None,
            "max_body_bytes": int(arguments.max_body_mib * 2**20),
            "timeout_s": arguments.timeout,
            "max_in_flight": arguments.max_in_flight,
            "max_parallel": arguments.max_num_seqs,
            "allow_own_formats": arguments.allow_own_formats,
            "log_products": arguments.log_products,
        },
    )


def vocabulary_settings(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the settings of every vocabulary, the default one first. Raises RecipeError: names clash."""
    entries: dict[str, dict[str, Any]] = {}
    if arguments.run is not None:
        entries["default"] = {"name": "default", "run": str(Path(arguments.run).resolve())}
    shared = {
        "shots": arguments.shots, "prompt": arguments.prompt, "min_tags": arguments.min_tags,
        "max_tags": arguments.max_tags, "with_parents": arguments.with_parents, "evidence": arguments.evidence,
        "max_tokens": arguments.max_tokens,
    }  # fmt: skip
    for text in arguments.vocabulary:
        name, path = _named(text)
        if name in entries:
            raise RecipeError(f"--vocabulary {text}: the name {name!r} is taken; give another as NAME=FILE")
        entries[name] = {"name": name, "vocabulary": str(Path(path).resolve()), **shared}
    prompted = [name for name, entry in entries.items() if "run" not in entry]
    for text in arguments.examples:
        name, path = _named(text)
        if "=" not in text and len(prompted) == 1:
            name = prompted[0]
        if name not in prompted:
            raise RecipeError(f"--examples {text}: for which vocabulary? give NAME=FILE, NAME one of {prompted}")
        entries[name]["examples"] = str(Path(path).resolve())
    return list(entries.values())


def _named(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    return (name, path) if separator else (Path(text).stem, text)


def ready_line(url: str, name: str, *, needs_key: bool) -> str:
    """Return what is printed once requests are taken: the address and an example."""
    key = ' -H "Authorization: Bearer $HANGTAG_KEY"' if needs_key else ""
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Red canvas sneakers, vegan"}]})
    return (
        f"serve.server: ready at {url}/v1, described at {url}/docs; try\n"
        f"  curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"
    )


def _address(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
