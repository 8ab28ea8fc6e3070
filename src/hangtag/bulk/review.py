"""Accept or review: the split of an edition by confidence, and the way back of what people decided.

The queue has one row for each distinct product, least sure first. A reviewer fills in `decision`: `accept` (the
tags are right), `change` (then `new_tags` holds the right ones: a JSON list, or tags parted by semicolons; `[]`
for none), or `skip`. Rows without a decision wait.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from hangtag.bulk.edition import Job
from hangtag.bulk.key_index import split_keys
from hangtag.bulk.keys import KEY_BYTES, key_bytes
from hangtag.bulk.ledger import EditionRecord
from hangtag.bulk.output import Output
from hangtag.bulk.rejoin import InputRow, rows_with_answers
from hangtag.bulk.statistics import least_confidence
from hangtag.bulk.writer import write_failure
from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.labelled import SPLITS, load_dataset
from hangtag.catalogue.rows import CatalogueRows
from hangtag.catalogue.tagging_columns import plain, tagging_rows
from hangtag.durable import write_durably
from hangtag.errors import DataError
from hangtag.formats.rows import Row
from hangtag.product import Product, ProductFields
from hangtag.vocabulary import TagVocabulary

ACCEPTED = "accepted.jsonl"
ACCEPTED_SAMPLE = "accepted_sample.jsonl"
COLUMNS = (
    "id", "confidence", "title", "description", "attributes", "tags", "confidences", "status", "reason",
    "decision", "new_tags",
)  # fmt: skip
DECISIONS = ("accept", "change", "skip")
_SORTED_AT_ONCE = 20_000
_SAMPLE_SIZE = 1000


def split(
    output: Output, edition: EditionRecord, job: Job, *, accept_at: float, form: Literal["csv", "jsonl"]
) -> None:
    """Write accepted.jsonl, in the order of the catalogue, the review queue, and a sample of what was accepted.

    Accepted is an "ok" tagging with tags whose least sure one reaches `accept_at`. Rows of status "error" are in
    errors.jsonl instead. The sample holds at most a thousand distinct products in the queue's form, drawn by the
    hashes that their keys are. Memory is flat: the queue is sorted on disk.

    Raises:
        DataError: the input is gone, or the disk is full.
    """
    other = output.path / f"review.{'jsonl' if form == 'csv' else 'csv'}"
    queue = output.path / f"review.{form}"
    try:
        with tempfile.TemporaryDirectory(dir=output.path, prefix=".review-") as scratch, ExitStack() as closing:
            sorted_files: list[IO[str]] = []
            sample = _Sample(_SAMPLE_SIZE)
            parts = _split_parts(output, edition, job, accept_at, Path(scratch), sorted_files, closing, sample)
            write_durably(output.path / ACCEPTED, _accepted(parts), step=output.step)
            write_durably(output.path / ACCEPTED_SAMPLE, _queue_jsonl(sample.entries()), step=output.step)
            merged = heapq.merge(*(map(_sort_key, stream) for stream in sorted_files))
            lines = (json.loads(line) for _, _, line in merged)
            write_durably(queue, _queue_csv(lines) if form == "csv" else _queue_jsonl(lines), step=output.step)
        # A queue of an earlier run in the other form would be of other taggings.
        other.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(queue, error) from None


def _sort_key(line: str) -> tuple[float, int, str]:
    confidence, number, text = line.split("\t", 2)
    return float(confidence), int(number), text


def _accepted(parts: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in parts:
        for row in rows:
            row = {
                name: value for name, value in row.items() if name not in ("reason", "violations", "cut") or value
            }
            yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _split_parts(
    output: Output,
    edition: EditionRecord,
    job: Job,
    accept_at: float,
    scratch: Path,
    sorted_files: list[IO[str]],
    closing: ExitStack,
    sample: _Sample,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the accepted rows of each part; rows for review go into sorted files, some accepted into `sample`."""
    index = output.index(edition.number)
    waiting: list[tuple[float, int, str]] = []

    def spill() -> None:
        waiting.sort()
        path = scratch / f"{len(sorted_files):06d}"
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{confidence!r}\t{number}\t{text}\n" for confidence, number, text in waiting)
        waiting.clear()
        sorted_files.append(closing.enter_context(path.open(encoding="utf-8")))

    number = 0
    for record, rows, table in rows_with_answers(output, edition, job, is_whole=False):
        answers = plain(table)
        least = least_confidence(answers.column("tags"))
        statuses = np.array(answers.column("status").to_pylist())
        has_tags = np.diff(answers.column("tags").combine_chunks().offsets.to_numpy()) > 0
        is_accepted = (statuses == "ok") & has_tags & (least >= accept_at)
        keys = key_bytes(table.column("key"))
        _, parts, places = index.lookup(split_keys(keys))
        is_first = (parts == record.number) & (places == np.arange(len(rows)))
        accepted = np.flatnonzero(is_accepted)
        full = answers.add_column(0, "id", table.column("id"))
        yield list(tagging_rows(full.take(accepted)))

        def entries(
            chosen: npt.NDArray[np.intp], rows: list[InputRow] = rows, full: Any = full, least: Any = least
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            for row, tagging in zip(chosen.tolist(), tagging_rows(full.take(chosen)), strict=True):
                source, to_fields = rows[row]
                assert not isinstance(source, str)
                to_fields = job.interpret or to_fields
                assert to_fields is not None
                fields = ProductFields.from_row(to_fields(source), default_id=tagging["id"])
                yield row, _entry(fields, tagging, float(least[row]))

        drawn, draws = sample.choose(np.flatnonzero(is_accepted & is_first), keys)
        sample.add(draws, (entry for _, entry in entries(drawn)))
        for row, entry in entries(np.flatnonzero(~is_accepted & (statuses != "error") & is_first)):
            waiting.append((float(least[row]), number + row, json.dumps(entry, ensure_ascii=False)))
        number += len(rows)
        if len(waiting) >= _SORTED_AT_ONCE:
            spill()
    if waiting:
        spill()


class _Sample:
    """The entries with the smallest draws: hashes, so that any of them are a random sample."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Largest draw first; no two keys are alike.
        self._heap: list[tuple[int, dict[str, Any]]] = []

    def choose(self, rows: npt.NDArray[np.intp], keys: bytes) -> tuple[npt.NDArray[np.intp], list[int]]:
        """Return those of the rows that may belong to the sample, and their draws."""
        draws = np.frombuffer(keys, ">u8").reshape(-1, KEY_BYTES // 8)[rows, 0]
        if len(self._heap) == self._size:
            rows, draws = rows[draws < -self._heap[0][0]], draws[draws < -self._heap[0][0]]
        return rows, draws.tolist()

    def add(self, draws: Iterable[int], entries: Iterable[dict[str, Any]]) -> None:
        for draw, entry in zip(draws, entries, strict=True):
            heapq.heappush(self._heap, (-draw, entry))
            if len(self._heap) > self._size:
                heapq.heappop(self._heap)

    def entries(self) -> Iterator[dict[str, Any]]:
        for _, entry in sorted(self._heap, key=lambda drawn: -drawn[0]):
            yield entry


def _entry(fields: ProductFields, tagging: dict[str, Any], confidence: float) -> dict[str, Any]:
    return {
        "id": fields.id,
        "confidence": round(confidence, 6),
        "title": fields.title,
        "description": fields.description,
        "attributes": fields.attributes,
        "tags": [tag["tag"] for tag in tagging["tags"]],
        "confidences": [tag["confidence"] for tag in tagging["tags"]],
        "status": tagging["status"],
        "reason": tagging["reason"],
        "decision": "",
        "new_tags": "",
    }


def _queue_jsonl(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for entry in entries:
        yield json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _queue_csv(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(
            json.dumps(entry[name], ensure_ascii=False) if isinstance(entry[name], list | dict) else entry[name]
            for name in COLUMNS
        )
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


@dataclass(frozen=True, slots=True)
class Decisions:
    """What reviewers decided: labelled products, how they were decided, and how many rows still wait."""

    products: tuple[Product, ...]
    accepted: int
    changed: int
    skipped: int
    waiting: int


def read_decisions(paths: Iterable[str | Path], vocabulary: TagVocabulary) -> Decisions:
    """Return the decided rows of review queues as labelled products; of rows with one id the last counts.

    Raises:
        DataError: a decision is no decision, or new tags are not in the vocabulary or break its facets' limits.
    """
    products: dict[str, Product] = {}
    counts = dict.fromkeys((*DECISIONS, "waiting"), 0)
    for path in paths:
        for line, row in _rows(path):
            where = f"{path}: row {line}"
            if isinstance(row, str):
                raise DataError(f"{where}: {row}")
            decision, tags = _decision(row, vocabulary, where)
            counts[decision] += 1
            if tags is not None:
                product = _product(row, tags, where)
                products[product.id] = product
    return Decisions(
        tuple(products.values()), counts["accept"], counts["change"], counts["skip"], counts["waiting"]
    )


def _rows(path: str | Path) -> Iterator[Row]:
    if str(path).endswith(".json"):
        yield from enumerate(_label_studio(path), 1)
        return
    rows = CatalogueRows([catalogue_file(path)])
    try:
        while batch := rows.read(2048):
            yield from batch
    finally:
        rows.close()


def _label_studio(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a queue that Label Studio's JSON says, one an annotation; a task without one waits."""
    try:
        tasks = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected Label Studio's JSON") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected Label Studio's export (JSON, not JSON-MIN)") from None
    try:
        for task in tasks:
            data = {name: task["data"].get(name) for name in ("id", "title", "description", "attributes")}
            for annotation in task.get("annotations") or [{"was_cancelled": None}]:
                if annotation.get("was_cancelled") or "result" not in annotation:
                    yield data | {"decision": "skip" if annotation.get("was_cancelled") else ""}
                    continue
                values = [result["value"] for result in annotation["result"] if "choices" in result["value"]]
                yield data | {
                    "decision": "change",
                    "new_tags": [tag for value in values for tag in value["choices"]],
                }
    except (AttributeError, KeyError, TypeError):
        raise DataError(f"{path}: no tasks of Label Studio; expected `data` and `annotations` in each") from None


def _decision(row: dict[str, Any], vocabulary: TagVocabulary, where: str) -> tuple[str, tuple[str, ...] | None]:
    decision = str(row.get("decision") or "").strip().lower()
    new_tags = row.get("new_tags")
    has_new = new_tags not in (None, "")
    if not decision:
        decision = "change" if has_new else "waiting"
    if decision not in (*DECISIONS, "waiting"):
        raise DataError(f"{where}: decision {decision!r}; expected one of {', '.join(DECISIONS)}, or nothing")
    if decision in ("skip", "waiting"):
        return decision, None
    if decision == "change" and not has_new:
        raise DataError(f"{where}: decision change without new_tags; write the right tags, or [] for none")
    tags = _tags(new_tags if decision == "change" else row.get("tags"), where)
    check_chosen(tags, vocabulary, where)
    return decision, tags


def check_chosen(tags: Iterable[str], vocabulary: TagVocabulary, where: str) -> None:
    """Refuse tags that a reviewer may not choose together; `where` opens the message.

    Raises:
        DataError: one is not in the vocabulary, or they break the maximum of a facet.
    """
    held: dict[str, int] = {}
    for tag in tags:
        if tag not in vocabulary:
            near = get_close_matches(tag, vocabulary.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{where}: tag {tag!r} is not in the vocabulary{hint}")
        facet = vocabulary[tag].facet
        held[facet] = held.get(facet, 0) + 1
        most = vocabulary.facets[facet].max
        if most is not None and held[facet] > most:
            raise DataError(f"{where}: {held[facet]} tags of facet {facet!r}, which holds at most {most}")


def _tags(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"{where}: {value!r:.60} is no JSON list of tags") from None
    elif isinstance(value, str):
        value = [tag.strip() for tag in value.split(";") if tag.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(tag, str) for tag in value):
        raise DataError(f"{where}: {value!r:.60} is no list of tags")
    return tuple(dict.fromkeys(value))


def _product(row: dict[str, Any], tags: tuple[str, ...], where: str) -> Product:
    fields = {name: row.get(name) for name in ("id", "title", "description", "attributes")}
    try:
        return Product.from_row({**fields, "tags": list(tags)}, default_id=where)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def write_labelled(
    folder: str | Path, products: Iterable[Product], vocabulary: TagVocabulary, *, base: str | Path | None = None
) -> dict[str, int]:
    """Write a labelled dataset and return the number of products of each split.

    Without `base` about 80 % are train, 10 % validation, 10 % test, drawn by the hashes of the texts, and no split
    is empty. With `base`, an existing dataset, the products join its training split, where they take the place of
    products with their ids; products of its other splits are left out, so that these stay unseen.

    Raises:
        DataError: fewer than three products without a base, `folder` exists and is not empty, or it cannot be
            written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists already; expected a new folder")
    products = list(products)
    if base is not None:
        data = load_dataset(base)
        held_out = {product.id for product in (*data.validation, *data.test)}
        train = {product.id: product for product in data.train}
        train |= {product.id: product for product in products if product.id not in held_out}
        splits = {"train": list(train.values()), "validation": list(data.validation), "test": list(data.test)}
    else:
        if len(products) < len(SPLITS):
            raise DataError(
                f"{len(products)} decided products; expected at least {len(SPLITS)}, one for each split"
            )
        ordered = sorted(products, key=lambda product: hashlib.sha256(product.text.encode()).digest())
        ends = max(1, len(ordered) // 10)
        splits = {"train": ordered[2 * ends :], "validation": ordered[:ends], "test": ordered[ends : 2 * ends]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in splits.items():
            lines = (row.model_dump_json().encode() + b"\n" for row in rows)
            write_durably(folder / f"{name}.jsonl", lines)
        vocabulary.save(folder / "vocabulary.json")
    except OSError as error:
        raise write_failure(folder, error) from None
    return {name: len(rows) for name, rows in splits.items()}
