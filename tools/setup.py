"""Make `.venv` with everything that this machine can use, and fetch the base models.

    python3 tools/setup.py

Runs on a bare Python 3.11 or newer. With an NVIDIA GPU it installs the extra `gpu`, without one the extra `cpu`
on a CPU build of torch. Repeating it is safe: what is done is not done again. The last lines say what was chosen
and why. Exit codes: 0 done, 1 a step failed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "hangtag-setup.json"
TORCH = "2.13.0"
MODELS = ("smollm2-135m", "minilm-l6")
EXTRAS = "train,eval,files,scale,fetch,dev"
# Their builds must match torch to the letter; hangtag needs none of them, and a misfit breaks `import vllm`.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

DESCRIBE = """
import json, os
from hangtag.engines.hardware import probe_hardware
hardware = probe_hardware()
print(json.dumps([
    f"engine: vLLM for catalogues, transformers for single texts",
    f"device: {hardware.device}",
    f"dtype: {hardware.dtype} ({hardware.reason})",
    f"cores: {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
]))
"""


def main() -> int:
    """Run all steps and return the exit code."""
    if sys.version_info < (3, 11):
        print(
            f"setup: Python {sys.version.split()[0]} found, 3.11 or newer is needed: make PYTHON=python3.11 setup"
        )
        return 1
    extra = "gpu" if has_gpu() else "cpu"
    wanted = digest(extra)
    stamp = read_stamp()
    try:
        if stamp.get("digest") != wanted:
            make_venv()
            install(extra)
            stamp = {"digest": wanted, "lines": describe(extra)}
            STAMP.write_text(json.dumps(stamp), encoding="utf-8")
        run(PYTHON, "-m", "hangtag.cli", "model", "fetch", *MODELS)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(f"setup: this step failed: {command:.200}\nsetup: mend what it says above, then repeat: make setup")
        return 1
    for line in stamp["lines"]:
        print(f"setup: {line}")
    return 0


def run(*command: str | Path, quiet: bool = False) -> None:
    """Run a command and raise CalledProcessError when it fails; `quiet` hides what it prints."""
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, stdout=output, stderr=output)


def has_gpu() -> bool:
    """Whether `nvidia-smi` lists a GPU."""
    if not shutil.which("nvidia-smi"):
        return False
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def digest(extra: str) -> str:
    """Return a hash of what decides the environment."""
    parts = [extra.encode(), sys.version.encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "tools/setup.py")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_stamp() -> dict[str, Any]:
    """Return what the last complete set-up left, or an empty dict."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text(encoding="utf-8")) if PYTHON.exists() else {}
        return stamp
    except (OSError, ValueError):
        return {}


def make_venv() -> None:
    """Make `.venv` with pip; where Debian keeps the venv module in a package of its own, install that as root."""
    if works("import pip"):
        return
    command = (sys.executable, "-m", "venv", "--clear", VENV)
    try:
        run(*command)
    except subprocess.CalledProcessError:
        if not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get")):
            print(
                "setup: Python's venv module is missing; on Debian and Ubuntu: sudo apt-get install python3-venv"
            )
            raise
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-q", "-y", f"python3.{sys.version_info.minor}-venv")
        run(*command)


def works(code: str) -> bool:
    """Whether the environment's Python runs `code` without an error."""
    if not PYTHON.exists():
        return False
    return subprocess.run([PYTHON, "-c", code], capture_output=True, cwd=ROOT, check=False).returncode == 0


def install(extra: str) -> None:
    """Install torch, then hangtag with its extras, then take out what does not fit this torch."""
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if extra == "cpu" and not works(f"import torch; assert torch.__version__.startswith('{TORCH}')"):
        print("setup: installing the CPU build of torch (about 200 MB)", flush=True)
        for attempt in (
            (*pip, f"torch=={TORCH}+cpu"),
            (*pip, f"torch=={TORCH}", "--index-url", TORCH_CPU_INDEX, "--timeout", "15", "--retries", "1"),
        ):
            try:
                run(*attempt, quiet=True)
                break
            except subprocess.CalledProcessError:
                continue
        else:
            print("setup: no CPU build of torch to be had; taking the default build", flush=True)
            run(*pip, f"torch=={TORCH}")
    print(f"setup: installing hangtag with the extras {extra},{EXTRAS} (some minutes the first time)", flush=True)
    run(*pip, "--editable", f".[{extra},{EXTRAS}]")
    for name in COMPANIONS:
        present = works(f"import importlib.util as u; assert u.find_spec('{name}')")
        if present and not works(f"import {name}"):
            run(PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", name)
            print(f"setup: removed {name}: it does not import beside torch {TORCH}, and hangtag does not need it")


def describe(extra: str) -> list[str]:
    """Return lines that say what was chosen and why."""
    found = "an NVIDIA GPU was found" if extra == "gpu" else "no NVIDIA GPU was found"
    done = subprocess.run([PYTHON, "-c", DESCRIBE], capture_output=True, text=True, cwd=ROOT, check=True)
    return [f"extra: {extra} ({found})", *json.loads(done.stdout.splitlines()[-1])]


if __name__ == "__main__":
    sys.exit(main())
