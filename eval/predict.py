"""Predictions of one arm, kept as they come: what is done is never done again, whatever ends the process.

A prediction log is JSON Lines. The first line says what the predictions are of, then one line a batch:
`{"start", "seconds", "prompt_tokens", "output_tokens", "taggings"}`, flushed to the disk before the next batch
begins. A torn last line (kill, full disk) is cut off, and its batch is done again. Its name carries a hash of
everything that decides the predictions, so a log is never continued under other settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag.errors import DataError, EngineError
from hangtag.product import Product
from hangtag.tagging import Tagger, Tagging, Usage


@dataclass(frozen=True, slots=True)
class Contestant:
    """A loaded arm. `usage` is the tagger's running count of tokens, None where it reads no tokens."""

    tagger: Tagger
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch took: wall seconds, and tokens (None where the arm reads none)."""

    num_products: int
    seconds: float
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class Predictions:
    """Taggings in the order of the products, and what they took; `setup_seconds` sums all loading and fitting."""

    taggings: list[Tagging] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    setup_seconds: float = 0.0


def slug(name: str) -> str:
    """Return an arm's name as a file name."""
    return re.sub(r"[^\w.-]+", "-", name)


def content_hash(content: Any) -> str:
    """Return 16 hexadecimal digits over the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class PredictionLog:
    """The file of one arm's predictions; opened by `open_log`."""

    def __init__(self, path: Path, done: Predictions) -> None:
        """Continue the log at `path`, whose content is `done`."""
        self.path = path
        self.done = done

    def append(self, taggings: Sequence[Tagging], batch: Batch) -> None:
        """Add a batch. Raises DataError: the file cannot be written."""
        line = {
            "start": len(self.done.taggings),
            "seconds": batch.seconds,
            "prompt_tokens": batch.prompt_tokens,
            "output_tokens": batch.output_tokens,
            "taggings": [json.loads(tagging.to_json()) for tagging in taggings],
        }
        self._write(line)
        self.done.taggings.extend(taggings)
        self.done.batches.append(batch)

    def add_setup(self, seconds: float) -> None:
        """Record that loading or fitting took `seconds`."""
        self._write({"setup_seconds": seconds})
        self.done.setup_seconds += seconds

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror or error})") from None


def open_log(path: Path, content: dict[str, Any]) -> PredictionLog:
    """Return the log at `path`, begun with `content` if it is new, and cut behind its last whole line.

    Raises:
        DataError: the file cannot be read or written.
    """
    done = Predictions()
    try:
        data = path.read_bytes() if path.exists() else b""
        kept = 0
        for number, line in enumerate(data.splitlines(keepends=True)):
            if not line.endswith(b"\n") or not _read_line(line, number, done):
                break
            kept += len(line)
        if kept < len(data):
            os.truncate(path, kept)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    log = PredictionLog(path, done)
    if not kept:
        log._write(content)
    return log


def _read_line(line: bytes, number: int, done: Predictions) -> bool:
    try:
        entry = json.loads(line)
        if number and "setup_seconds" in entry:
            done.setup_seconds += entry["setup_seconds"]
        elif number:
            taggings = [Tagging.model_validate(tagging) for tagging in entry["taggings"]]
            if entry["start"] != len(done.taggings):
                return False
            done.taggings.extend(taggings)
            done.batches.append(
                Batch(len(taggings), entry["seconds"], entry["prompt_tokens"], entry["output_tokens"])
            )
    except (ValueError, KeyError, TypeError):
        return False
    return True


def predict(
    log: PredictionLog,
    products: Sequence[Product],
    load: Callable[[], Contestant],
    *,
    batch_size: int,
    advance: Callable[[int], None],
) -> Predictions:
    """Return the taggings of all products, doing only what the log lacks; `load` is called only if needed.

    `advance` is told the number of products of each batch, those found in the log at once.

    Raises:
        EngineError: the tagger did not give one tagging a product, in order.
    """
    start = len(log.done.taggings)
    advance(start)
    if start >= len(products):
        return log.done
    clock = time.monotonic()
    contestant = load()
    log.add_setup(time.monotonic() - clock)
    while start < len(products):
        batch = products[start : start + batch_size]
        usage = contestant.usage
        before = (usage.prompt_tokens, usage.output_tokens) if usage else (0, 0)
        clock = time.monotonic()
        taggings = contestant.tagger.tag(batch)
        seconds = time.monotonic() - clock
        if [tagging.id for tagging in taggings] != [product.id for product in batch]:
            raise EngineError(
                f"the tagger gave {len(taggings)} taggings for {len(batch)} products, or in another order; "
                "expected one a product, in order"
            )
        tokens = (usage.prompt_tokens - before[0], usage.output_tokens - before[1]) if usage else (None, None)
        log.append(taggings, Batch(len(batch), seconds, *tokens))
        start += len(batch)
        advance(len(batch))
    return log.done
