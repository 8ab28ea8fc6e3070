from __future__ import annotations

import subprocess
import sys

import pytest

import hangtag

HEAVY = ("torch", "vllm", "transformers", "trl", "peft", "sklearn", "matplotlib", "pandas", "numba", "ray")


@pytest.mark.parametrize(
    "module",
    [
        "hangtag",
        "hangtag.cli",
        "hangtag.taggers.generative",
        "serve.generate",
        "serve.demo",
        "serve.bench",
        "serve.server",
        "hangtag.endpoint.app",
        "hangtag.taggers.http_client",
        "eval.run",
        "eval.ceiling",
        "eval.compare",
        "eval.report",
        "sft.train_bert",
    ],
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names() -> None:
    assert hangtag.__all__ == sorted(hangtag.__all__)
    assert all(getattr(hangtag, name) for name in hangtag.__all__)
