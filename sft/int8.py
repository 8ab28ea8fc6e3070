"""A merged model in 8 bits: W8A8 in the compressed-tensors form that vLLM loads. Imports torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_PROJECTION = "_proj.weight"
_WEIGHTS = "*.safetensors"
_SCHEME: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True
            },
        }
    },
}  # fmt: skip


def write_int8(model: Path, target: Path) -> None:
    """Write `model` (a Hugging Face folder) into `target` with its projections in int8.

    One scale an output channel, symmetric, from the largest weight; activations are quantised by the engine, one
    scale a token. Embeddings, norms and the head stay as they are. Flat memory: one tensor at a time is read.

    Source: the "int-quantized" layout of compressed-tensors: `NAME.weight` in int8 and `NAME.weight_scale`, shape
    (channels, 1).
    """
    target.mkdir(parents=True)
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(model.glob(_WEIGHTS)):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # no mapping, though it has keys
                weight = stored.get_tensor(name)
                if name.endswith(_PROJECTION):
                    tensors[name], tensors[f"{name}_scale"] = quantise(weight)
                else:
                    tensors[name] = weight
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"quantization_config": _SCHEME}, indent=1), encoding="utf-8")


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 weights of the shape of `weight` (channels, inputs) and scales (channels, 1) in float32."""
    scale = (weight.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
    return torch.round(weight.float() / scale).clamp(-127, 127).to(torch.int8), scale
