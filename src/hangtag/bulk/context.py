"""What beside the product decides a tagging: collected from names and files, before any engine is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hangtag.bulk.keys import changed_tags, context_digest
from hangtag.bulk.ledger import EditionRecord
from hangtag.constraint import Limits
from hangtag.home import hangtag_home
from hangtag.loading import FineTunedRun
from hangtag.manifest import file_sha256, folder_sha256, write_json
from hangtag.models import resolve_model
from hangtag.nearest import default_encoder_name
from hangtag.vocabulary import TagVocabulary

_FORM = 1
"""Counts up when the same ingredients begin to give other prompts or taggings."""


def prompted_ingredients(
    *,
    model: str,
    vocabulary: TagVocabulary,
    limits: Limits,
    template: Path,
    shots: int,
    examples: str | Path | None,
    decoding: str,
    max_tokens: int,
    budget: str,
) -> dict[str, Any]:
    """Return the ingredients of taggings by a prompted model. Raises HangtagError: the model is not to be had."""
    return {
        "form": _FORM,
        "model": model_digest(model),
        "prompt": {
            "template": file_sha256(template),
            "shots": shots,
            "examples": file_sha256(examples) if examples and shots else None,
            "encoder": default_encoder_name() if shots else None,
            "budget": budget,
        },
        **vocabulary_ingredients(vocabulary),
        "limits": _limits(limits),
        "decoding": {"kind": decoding, "max_tokens": max_tokens},
        "calibration": None,
    }


def run_ingredients(run: FineTunedRun, *, weights: str, decoding: str) -> dict[str, Any]:
    """Return the ingredients of taggings by the exported weights of a fine-tuned run directory.

    `weights` names their folder in the run.

    Raises:
        DataError: the run has no such weights.
    """
    _, digest = run.exported(weights)
    calibration = run.folder / "calibration.json"
    return {
        "form": _FORM,
        "model": {"base": run.manifest.base_model, "sha256": digest},
        "prompt": {"template": file_sha256(run.folder / "prompt.jinja")},
        **vocabulary_ingredients(run.vocabulary),
        "settings": run.answers.model_dump(),
        "decoding": {"kind": decoding},
        "calibration": file_sha256(calibration) if calibration.is_file() else None,
    }


def named_ingredients(
    name: str, vocabulary: TagVocabulary, *, examples: str | Path | None = None, shots: int = 0
) -> dict[str, Any]:
    """Return the ingredients of taggings by what is known by its name only, such as a model behind an endpoint."""
    return {
        "form": _FORM,
        "model": name,
        "prompt": {"examples": file_sha256(examples) if examples and shots else None, "shots": shots},
        **vocabulary_ingredients(vocabulary),
    }


def vocabulary_ingredients(vocabulary: TagVocabulary) -> dict[str, Any]:
    """Return what of a vocabulary decides a tagging: its fingerprint and its facets' limits."""
    facets = {name: [limits.min, limits.max] for name, limits in vocabulary.facets.items()}
    return {"vocabulary": vocabulary.fingerprint, "facets": facets}


def carry_from(
    edition: EditionRecord, ingredients: Mapping[str, Any], vocabulary: TagVocabulary
) -> tuple[str, frozenset[str]] | None:
    """Return the edition's context and the tags whose taggings must be made again, if the others need not be.

    None if the edition has the same context, or anything beside the names of tags has changed.
    """
    before = edition.details["ingredients"]
    if context_digest(before) == context_digest(ingredients):
        return None
    if {**before, "vocabulary": ""} != json.loads(json.dumps({**ingredients, "vocabulary": ""})):
        return None
    changed = changed_tags(TagVocabulary.from_json(edition.details["vocabulary"]), vocabulary)
    return None if changed is None else (edition.context, changed)


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


def _limits(limits: Limits) -> dict[str, Any]:
    facets = limits.facets
    return {
        "min_tags": limits.min_tags,
        "max_tags": limits.max_tags,
        "with_parents": limits.with_parents,
        "only_facets": sorted(limits.only_facets) if limits.only_facets is not None else None,
        "facets": {name: [limit.min, limit.max] for name, limit in facets.items()} if facets else None,
    }
