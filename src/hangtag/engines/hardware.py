"""What this machine computes fastest with."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hangtag.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class Hardware:
    """`device` is "cuda" or "cpu", `dtype` the faster of float32 and bfloat16 there; `reason` says why."""

    device: str
    dtype: str
    reason: str


def probe_hardware() -> Hardware:
    """Return device and dtype for a language model here. Cost: about 0.1 s on a CPU, after importing torch.

    On a GPU bfloat16 where the chip has it. On a CPU the faster in three products of the shape that a small
    decoder's feed-forward layer has with 64 sequences in flight: whether bfloat16 pays depends on the CPU.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "cpu") from None
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Hardware("cuda", "bfloat16", f"{name} has bfloat16")
        return Hardware("cuda", "float16", f"{name} has no bfloat16")
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(64, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        torch.nn.functional.linear(left, right)
        runs = []
        for _ in range(20):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            runs.append(time.perf_counter() - start)
        seconds[str(dtype).removeprefix("torch.")] = sorted(runs)[len(runs) // 2]
    best = min(seconds, key=seconds.__getitem__)
    times = ", ".join(f"{name} {value * 1e6:.0f} us" for name, value in seconds.items())
    return Hardware("cpu", best, f"a 64x576x1536 product takes: {times}")
