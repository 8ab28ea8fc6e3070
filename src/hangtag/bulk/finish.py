"""Which edition a command goes on with, and what closes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hangtag.bulk.context import carry_from
from hangtag.bulk.edition import Job
from hangtag.bulk.ledger import EditionRecord, PartRecord
from hangtag.bulk.output import Output
from hangtag.bulk.statistics import edition_statistics, failed_rows
from hangtag.bulk.writer import write_failure
from hangtag.catalogue.files import STDIN, CatalogueFile, changed_file
from hangtag.durable import write_durably
from hangtag.errors import DataError
from hangtag.formats.columnar import class_labels
from hangtag.manifest import MANIFEST, provenance
from hangtag.vocabulary import TagVocabulary

ERRORS = "errors.jsonl"
REPORT = "report.json"
VOCABULARY = "vocabulary.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command has to do. `edition` None: begin a new one, with `signature` and `details`."""

    job: Job
    signature: str
    details: Mapping[str, Any]
    edition: EditionRecord | None
    lines: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether every row has its tagging already."""
        return self.edition is not None and self.edition.state == "complete"


def plan_edition(
    output: Output,
    job: Job,
    *,
    format: str,
    ingredients: Mapping[str, Any],
    vocabulary: TagVocabulary,
    is_strict: bool = False,
) -> Plan:
    """Return which edition of `output` the job goes on with, and from which others it takes taggings.

    `is_strict` makes every tagging again when the vocabulary changed. `lines` tell the user what differs.

    Raises:
        DataError: the folder is damaged.
    """
    signature = json.dumps(
        {
            "context": job.context,
            "files": [[file.path, file.size, file.mtime_ns] for file in job.files],
            "columns": dict(job.reading.columns),
            "keep": [name for name, _ in job.keep],
            "format": format,
            "part_rows": job.part_rows,
            **({"reading": job.reading.settings()} if job.reading.settings() else {}),
        },
        ensure_ascii=False,
        sort_keys=True,
    )
    details = {"format": format, "ingredients": dict(ingredients), "vocabulary": vocabulary.to_json()}
    editions = output.editions()
    newest = editions[-1] if editions else None
    lines: list[str] = []
    carry = None if is_strict else _carry(editions, ingredients, vocabulary)
    job = replace(job, carry=carry)
    if newest is not None and newest.signature == signature and newest.state != "left":
        # Standard input cannot be read from where the last run ended.
        is_same = all(file.path != STDIN for file in job.files)
        has_failed = any(_num_failed(record) for record in output.records[newest.number].values())
        if is_same and not (newest.state == "complete" and job.retry_errors and has_failed):
            return Plan(job, signature, details, newest, ())
    elif newest is not None and newest.state == "running":
        lines.append(_difference(json.loads(newest.signature), json.loads(signature)))
    if carry is not None:
        names = ", ".join(sorted(carry[1])[:5]) or "none"
        lines.append(f"tags were renamed or taken out: products with one of them are tagged again ({names})")
    return Plan(job, signature, details, None, tuple(lines))


def _carry(
    editions: Sequence[EditionRecord], ingredients: Mapping[str, Any], vocabulary: TagVocabulary
) -> tuple[str, frozenset[str]] | None:
    """Return the context whose taggings are taken over: the newest that allows it, a complete one first."""
    by_worth = sorted(editions, key=lambda edition: (edition.state == "complete", edition.number), reverse=True)
    carried = (carry_from(edition, ingredients, vocabulary) for edition in by_worth)
    return next((carry for carry in carried if carry is not None), None)


def _num_failed(record: PartRecord) -> int:
    return record.counts.get("error", 0) + record.counts.get("unparsed", 0)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before["files"] != now["files"]:
        what = "the input changed since the run that was not finished"
    elif before["context"] != now["context"]:
        what = "model, prompt, vocabulary or limits changed since the run that was not finished"
    else:
        what = "the form of the output changed since the run that was not finished"
    return f"{what}: all rows are read again, and only those whose key changed are tagged again"


def edition_of(output: Output, plan: Plan) -> EditionRecord:
    """Return the edition that is to be brought to its end, a new one where the plan says so."""
    if plan.edition is not None:
        return plan.edition
    return output.begin(plan.signature, plan.job.context, plan.details)


def close_edition(
    output: Output, edition: EditionRecord, job: Job, *, extra: Mapping[str, Any], accept_at: float | None = None
) -> dict[str, Any]:
    """Write errors.jsonl, report.json and vocabulary.json of an edition whose rows are done; return the report.

    Raises:
        DataError: the input is not what it was when the edition began, or the disk is full.
    """
    if change := changed_file(job.files):
        raise DataError(
            f"{change} while it was read; repeat the same command: rows that are the same are not tagged again"
        )
    folder, records = output.folders[edition.number], ordered_records(output, edition)
    report = {
        "program": "serve.generate",
        "edition": edition.number,
        "inputs": [file.name for file in job.files],
        "context": edition.context,
        "model": job.model,
        "vocabulary": job.vocabulary,
        "accept_at": accept_at,
        **edition_statistics(folder, records),
        **extra,
        "provenance": provenance(),
    }
    try:
        write_durably(output.path / ERRORS, failed_rows(folder, records, job.files), step=output.step)
        write_json_durably(output, VOCABULARY, edition.details["vocabulary"])
        write_json_durably(output, REPORT, report)
    except OSError as error:
        raise write_failure(output.path, error) from None
    return report


def known_report(output: Output, edition: EditionRecord) -> dict[str, Any] | None:
    """Return report.json if it is of this edition, else None."""
    try:
        report = json.loads((output.path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("edition") == edition.number else None


def publish(output: Output, edition: EditionRecord, job: Job, *, seconds: float) -> None:
    """Write manifest.json, enter the edition as complete, and delete the others. Safe to repeat."""
    folder, records = output.folders[edition.number], ordered_records(output, edition)
    manifest = {
        "program": "serve.generate",
        "edition": edition.number,
        "format": folder.format,
        "rows": sum(record.num_rows for record in records),
        "model": job.model,
        "vocabulary": job.vocabulary,
        "context": edition.context,
        "ingredients": edition.details["ingredients"],
        "inputs": [_input(file) for file in job.files],
        "parts": [
            {
                "file": str(folder.part_path(record.number).relative_to(output.path)),
                "rows": record.num_rows,
                "bytes": record.num_bytes,
                "sha256": record.sha256,
            }
            for record in records
        ],
        "provenance": provenance(),
    }
    try:
        write_json_durably(output, MANIFEST, manifest)
    except OSError as error:
        raise write_failure(output.path / MANIFEST, error) from None
    output.ledger.complete(edition.number, seconds)
    output.forget_others(edition.number)


def ordered_records(output: Output, edition: EditionRecord) -> list[PartRecord]:
    """Return an edition's parts in order."""
    records = output.records[edition.number]
    return [records[number] for number in sorted(records)]


def write_json_durably(output: Output, name: str, document: Any) -> None:
    """Write indented JSON into the output folder, whole or not at all. Raises OSError."""
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    write_durably(output.path / name, [text.encode()], step=output.step)


def _input(file: CatalogueFile) -> dict[str, Any]:
    return {"path": file.name, "bytes": file.size, "mtime_ns": file.mtime_ns}


def kept_columns(files: Sequence[CatalogueFile], names: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Return each column to keep with its Arrow type: that of the first file if it is Parquet, else None (text).

    Raises:
        DataError: the column has a name that the output uses, or is not in the file.
    """
    taken = {"id", "tags", "status", "reason", "violations", "cut", "model", "vocabulary", "key"}
    for name in names:
        if name in taken:
            raise DataError(f"--keep {name}: the output has a column of this name; rename it in the input")
    if not names or files[0].kind != ".parquet" or not Path(files[0].path).is_file():
        return tuple((name, None) for name in names)
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(files[0].path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{files[0].name}: not readable as Parquet ({error})") from None
    for name in names:
        if name not in schema.names:
            raise DataError(f"{files[0].name}: no column {name!r} to keep; it has: {', '.join(schema.names)}")
    # Labels come as the names that their numbers stand for.
    labels = class_labels(schema.metadata)
    return tuple((name, None if name in labels else schema.field(name).type) for name in names)
