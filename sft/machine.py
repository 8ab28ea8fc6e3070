"""What training asks of this machine: the faster number format and attention, and memory that is kept."""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any, TypeVar

from hangtag.errors import RecipeError
from sft.recipe import TrainingRecipe

R = TypeVar("R", bound=TrainingRecipe)
_PLAIN_ATTENTION_TOKENS = 192


def with_number_format(recipe: R) -> R:
    """Return the recipe with `trainer.bf16` chosen by a probe, where it names neither `bf16` nor `fp16`."""
    options: dict[str, Any] = recipe.trainer
    if {"bf16", "fp16"} & options.keys():
        return recipe
    return recipe.model_copy(update={"trainer": options | {"bf16": is_bfloat16_faster()}})


def surroundings() -> dict[str, Any]:
    """Return the trainer options that depend on where a program runs: a recipe's options win over them."""
    import torch

    # Without `use_cpu` transformers refuses `bf16` where there is no GPU.
    return {"disable_tqdm": not sys.stderr.isatty(), "use_cpu": not torch.cuda.is_available()}


def is_bfloat16_faster() -> bool:
    """Return whether bfloat16 products of matrices are clearly faster here: not all CPUs with them gain."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows, weights = torch.ones(1024, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
        timings = []
        for _ in range(12):
            began = time.perf_counter()
            torch.nn.functional.linear(rows, weights)
            timings.append(time.perf_counter() - began)
        # The least: everything else is another process's doing.
        seconds[dtype] = min(timings)
    return seconds[torch.bfloat16] < 0.7 * seconds[torch.float32]


def choose_attention(model: Any, ids: Any) -> None:
    """Let a language model attend to `ids`, shape (rows, tokens), in the way that trains faster.

    On a CPU the backward pass of torch's fused attention in bfloat16 is slow: with a plain one SmolLM2-135M trains
    1.4 times as fast on short texts (sft/LOG.md). Long ones keep the fused one: the plain one's memory grows with
    the square of their length.
    """
    if ids.device.type == "cpu":
        chosen = "eager" if ids.shape[1] <= _PLAIN_ATTENTION_TOKENS else "sdpa"
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if base.config._attn_implementation != chosen:
            base.set_attn_implementation(chosen)


def can_compile() -> bool:
    """Return whether torch can compile for this machine: for a CPU it needs a C++ compiler."""
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return torch.cuda.is_available() or bool(get_cpp_compiler())
    except InvalidCxxCompiler:
        return False


def compile_layers(model: Any) -> None:
    """Let torch compile a language model's layers when they are first called, for sequences of any length.

    Only while it learns: what it generates comes from the layers as they are (`sft.validation.tag_with`).

    Raises:
        RecipeError: `can_compile` says no.
    """
    if not can_compile():
        raise RecipeError("`compile: true` needs a C++ compiler; install g++, or leave the key out")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for module in base.modules():
        if type(module).__name__ in base._no_split_modules:
            module.compile(dynamic=True)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: each step frees and takes the same large blocks, and faults are dear."""
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
