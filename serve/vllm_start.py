"""What vLLM's process is started with: weights, flags, environment, and what must be free for it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hangtag.engines.vllm_offline import CPU_STEP_TOKENS, KV_CACHE_GIB, MAX_MODEL_LEN, max_lora_rank
from hangtag.errors import EngineError, ModelError, RecipeError
from hangtag.loading import DEFAULT_MODEL

NAME = "hangtag"
_MIDDLEWARE = "hangtag.endpoint.app.Endpoint"
_REFUSED = {
    "--api-key": "give keys with --keys: vLLM's own key leaves routes open",
    "--async-scheduling": "it withholds tokens from the constraint",
    "--speculative-config": "vLLM then loads no constraint and says so to nobody",
    "--spec": "vLLM then loads no constraint and says so to nobody",
    "-sc": "vLLM then loads no constraint and says so to nobody",
    "--served-model-name": "the server is called hangtag",
    "--logprobs-mode": "confidences need processed log-probabilities",
    "--enable-log-requests": "it logs product text unmasked; use --log-products",
    "--enable-log-outputs": "it logs taggings; use --log-products",
    "--uds": "the endpoint listens on a port",
    "--grpc": "it opens a second door without keys",
    "--data-parallel-multi-port-external-lb": "it opens more ports; start one server each instead",
    "--omni": "it starts another server",
    "--headless": "then no endpoint is served",
    "--tokenizer": "prompts are written with the model's own tokenizer",
    "--skip-tokenizer-init": "prompts are written with the model's own tokenizer",
    "--chat-template": "prompts come from --run or --prompt",
    "--trust-request-chat-template": "prompts come from --run or --prompt",
    "--root-path": "let the proxy in front take the prefix away",
    "--config": "give the options on the command line",
}
# With every flag that begins like them.
_REFUSED_FAMILIES = ("--spec", "--grpc")
# Would log bodies, open more routes, leave our middleware out, or register other constraints.
_DROPPED_VARIABLES = (
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "VLLM_SERVER_DEV_MODE", "VLLM_USE_RUST_FRONTEND", "HANGTAG_CONSTRAINTS"
)  # fmt: skip


def check_flags(flags: Sequence[str]) -> None:
    """Return if vLLM may get these flags. Raises RecipeError: one would break a promise of the endpoint."""
    for flag in flags:
        name = flag.split("=")[0].replace("_", "-")
        for refused, why in _REFUSED.items():
            # vLLM takes a flag's unambiguous beginning for the flag.
            is_short = name.startswith("--") and len(name) >= 5 and refused.startswith(name)
            is_family = refused in _REFUSED_FAMILIES and name.startswith(f"{refused}-")
            if name == refused or is_short or is_family:
                raise RecipeError(f"{name}: refused: {why}")


@dataclass(frozen=True)
class Weights:
    """What vLLM loads: a model, and an adapter on top of it if there is one, with its run's tokenizer."""

    model: str
    adapter: str | None = None
    tokenizer: str | None = None


def choose_weights(arguments: argparse.Namespace) -> Weights:
    """Return what to load.

    Raises:
        HangtagError: neither run nor vocabulary is given, or the run has no such weights.
    """
    from hangtag.language_model.run import read_run
    from hangtag.models import resolve_model

    if arguments.run is None:
        if not arguments.vocabulary:
            raise RecipeError("give a run with --run, or a vocabulary with --vocabulary")
        return Weights(resolve_model(arguments.model or DEFAULT_MODEL))
    if arguments.model is not None:
        raise RecipeError("--model and --run exclude each other: a run brings its model")
    trained = read_run(arguments.run)
    run = Path(arguments.run).resolve()
    has_tag_tokens = trained.answers.answer == "tag_tokens"
    name = arguments.weights or (
        "adapter"
        if not has_tag_tokens and not (run / "model").exists() and trained.files.adapter.exists()
        else "model"
    )
    if name != "adapter":
        folder, _ = trained.exported(name)
        return Weights(str(folder.resolve()))
    if has_tag_tokens:
        raise ModelError(
            f"{run}: vLLM cannot add the rows of its tags to an adapter; merge them with "
            f"python -m sft.export --run {arguments.run}"
        )
    if not (run / name / "adapter_config.json").is_file():
        raise ModelError(f"{run}: no {name}/adapter_config.json; the run was not trained with an adapter")
    return Weights(resolve_model(trained.manifest.base_model), str(run / name), str(run / "tokenizer"))


def model_length(model: str, wanted: int | None) -> int:
    """Return how many tokens prompt and answer may have: what is wanted, as far as the model reads."""
    try:
        import transformers

        config = transformers.AutoConfig.from_pretrained(model)
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(
            f"{model}: its configuration cannot be read ({str(error).splitlines()[0]:.200})"
        ) from None
    longest = getattr(config.get_text_config(), "max_position_embeddings", MAX_MODEL_LEN)
    return min(wanted or MAX_MODEL_LEN, int(longest))


def free_port(host: str, port: int) -> int:
    """Return the port to listen on; 0 is replaced. Raises EngineError: it is taken, or the address is none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"{host}:{port}: cannot listen there ({error}); choose another --port or --host"
        ) from None


def check_memory(model: str) -> None:
    """Return if weights and key-value cache fit into this machine's free memory.

    Raises:
        EngineError: they do not.
    """
    folder = Path(model)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    except (OSError, StopIteration):
        return
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30 if folder.is_dir() else 0
    cache = float(os.environ.get("VLLM_CPU_KVCACHE_SPACE", KV_CACHE_GIB))
    # The serving process and the engine each hold torch; the engine reads the weights beside their copy.
    needed = weights * 1.2 + cache + 2
    if needed > available:
        raise EngineError(
            f"{model}: about {needed:.1f} GiB are needed ({weights:.1f} for weights, {cache:g} for the cache), "
            f"{available:.1f} are free; lower VLLM_CPU_KVCACHE_SPACE or take a smaller model"
        )


def child_environment(device: str, extra: dict[str, str]) -> dict[str, str]:
    """Return the environment of vLLM's process."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED_VARIABLES}
    environment.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    if device == "cpu":
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB))
    return environment | extra


def vllm_command(
    arguments: argparse.Namespace,
    weights: Weights,
    names: Sequence[str],
    port: int,
    hardware: Any,
    rest: Sequence[str],
    max_model_len: int,
) -> list[str]:
    """Return the command that starts vLLM; `rest` stands after our own flags, so that it wins."""
    command = [sys.executable, "-m", "hangtag.engines.vllm_serve", weights.model]
    command += ["--host", arguments.host, "--port", str(port), "--dtype", arguments.dtype or hardware.dtype]
    command += ["--max-model-len", str(max_model_len), "--max-num-seqs", str(arguments.max_num_seqs)]
    command += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs", "--enable-prefix-caching"]
    # With it, vLLM's V1 runner on a GPU withholds the written tokens that the constraint must follow.
    command += ["--no-async-scheduling"]
    if hardware.device == "cpu":
        # Compilation takes two minutes there; short steps give early first answers at the same throughput.
        command += [
            "--enforce-eager",
            "--max-num-batched-tokens",
            str(max(CPU_STEP_TOKENS, arguments.max_num_seqs)),
        ]
    if weights.adapter is not None:
        rank = json.loads((Path(weights.adapter) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        bound = str(max_lora_rank(rank))
        command += ["--served-model-name", f"{NAME}-base", "--enable-lora", "--max-lora-rank", bound]
        command += ["--tokenizer", weights.tokenizer or weights.model, "--lora-modules"]
        command += [f"{name}={weights.adapter}" for name in names]
    else:
        command += ["--served-model-name", *names]
    command += ["--disable-uvicorn-access-log", "--disable-fastapi-docs", "--uvicorn-log-level", "warning"]
    return [*command, *rest, "--middleware", _MIDDLEWARE]
