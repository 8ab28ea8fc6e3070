"""The catalogue as it was read, with the tags beside it: `--join FILE`.

Columns `tags` (list of text), `tag_confidences` (list of numbers) and `tag_status` are added, with `hangtag_`
before a name that the input has already. CSV keeps the line ends of the input. A row that could not be read has
what of it could be, at least its name.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hangtag.bulk.edition import Job
from hangtag.bulk.ledger import EditionRecord
from hangtag.bulk.output import Output
from hangtag.bulk.rejoin import rows_with_answers
from hangtag.bulk.writer import write_failure
from hangtag.catalogue.files import CatalogueFile
from hangtag.catalogue.rows import CatalogueRows
from hangtag.catalogue.tagging_columns import plain
from hangtag.durable import sync_folder
from hangtag.errors import DataError
from hangtag.formats.columnar import class_labels
from hangtag.formats.rows import Unreadable

ADDED = ("tags", "tag_confidences", "tag_status")
_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")
JoinedRow = dict[str, Any]
_READ_ROWS = 2048


def check_target(path: Path) -> str:
    """Return the kind of file that `path` names. Raises DataError: it is of another kind."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    if kind not in _KINDS or (suffixes[-1] == ".gz" and kind == ".parquet"):
        raise DataError(
            f"--join {path}: expected a name that ends in .parquet, .csv or .jsonl (the last two also .gz)"
        )
    return kind


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the input, and under which names tags, confidences and status stand beside them."""

    given: tuple[str, ...]
    added: tuple[str, str, str]

    @classmethod
    def of(cls, job: Job) -> _Columns:
        """Return what the rows of all files have; JSON Lines are read to their end for it."""
        given: dict[str, None] = {}
        for file in job.files:
            rows = CatalogueRows([file], None if job.interpret else job.reading)
            try:
                while batch := rows.read(_READ_ROWS):
                    for _, row in batch:
                        given |= dict.fromkeys(row if isinstance(row, dict) else getattr(row, "cells", ()))
                    if file.kind in (".csv", ".tsv", ".parquet") and given:
                        break
            finally:
                rows.close()
        taken = {name.casefold() for name in given}
        tags, confidences, status = (f"hangtag_{name}" if name in taken else name for name in ADDED)
        return cls(tuple(given) or (job.reading.columns.get("id", "id"),), (tags, confidences, status))


def write_joined(output: Output, edition: EditionRecord, job: Job, path: Path) -> None:
    """Write the joined catalogue, whole or not at all.

    Raises:
        DataError: the input is gone, or the file cannot be written.
    """
    kind = check_target(path)
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(kind, _write_jsonl)
    temporary = path.with_name(f".{path.name}.partial")
    columns = _Columns.of(job)
    if renamed := [name for name in columns.added if name not in ADDED]:
        output.say(f"the input has columns of these names; the tags are in {', '.join(renamed)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as raw:
            with ExitStack() as closing:
                stream: Any = raw
                if path.suffix.lower() == ".gz":
                    # Without a time, the same rows give the same bytes.
                    stream = closing.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename=""))
                write(stream, _joined(output, edition, job, columns), job, columns)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        sync_folder(path.resolve().parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_failure(path, error) from None


def _joined(output: Output, edition: EditionRecord, job: Job, columns: _Columns) -> Iterator[list[JoinedRow]]:
    for _, rows, table in rows_with_answers(output, edition, job):
        ids = table.column("id").to_pylist()
        answers = plain(table).select(["tags", "status"]).to_pylist()
        joined = []
        for (row, _), row_id, answer in zip(rows, ids, answers, strict=True):
            tags, confidences = ([tag[name] for tag in answer["tags"]] for name in ("tag", "confidence"))
            added = dict(zip(columns.added, (tags, confidences, answer["status"]), strict=True))
            if isinstance(row, str):
                cells = row.cells if isinstance(row, Unreadable) else {}
                row = {job.reading.columns.get("id", "id"): row_id} | cells
            joined.append(row | added)
        yield joined


def _write_jsonl(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job, columns: _Columns) -> None:
    for rows in parts:
        for row in rows:
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str)
            stream.write(text.encode("utf-8", "replace") + b"\n")


def _write_csv(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job, columns: _Columns) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="", write_through=True)
    writer = csv.writer(text, lineterminator=_line_end(job.files[0]))
    names = [*columns.given, *columns.added]
    writer.writerow(names)
    for rows in parts:
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    text.flush()
    text.detach()


def _line_end(file: CatalogueFile) -> str:
    if file.kind not in (".csv", ".tsv"):
        return "\n"
    with file.open() as stream:
        return "\r\n" if stream.readline().endswith(b"\r\n") else "\n"


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _write_parquet(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job, columns: _Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    kinds = (pa.list_(pa.string()), pa.list_(pa.float64()), pa.string())
    fields = [*_fields(columns, job), *map(pa.field, columns.added, kinds)]
    with pyarrow.parquet.ParquetWriter(stream, pa.schema(fields), compression="zstd") as writer:
        for rows in parts:
            arrays = []
            for field in fields:
                convert = _converter(field.type)
                arrays.append(pa.array([convert(row.get(field.name)) for row in rows], field.type))
            writer.write_table(pa.table(arrays, schema=pa.schema(fields)))


def _fields(columns: _Columns, job: Job) -> list[Any]:
    """Return the columns with the types that the Parquet files agree on, as text where there are none."""
    import pyarrow as pa
    import pyarrow.parquet

    kinds: dict[str, set[Any]] = {}
    for file in job.files:
        is_local = file.kind == ".parquet" and Path(file.path).is_file()
        schema = pyarrow.parquet.read_schema(file.path) if is_local else pa.schema([])
        for field in schema:
            if field.name in class_labels(schema.metadata):
                # Labels come as the names that their numbers stand for.
                continue
            kinds.setdefault(field.name, set()).add(field.type)
    if any(file.kind != ".parquet" for file in job.files):
        kinds.clear()
    return [pa.field(n, kinds[n].pop() if len(kinds.get(n, ())) == 1 else pa.string()) for n in columns.given]


def _converter(kind: Any) -> Callable[[Any], Any]:
    import pyarrow as pa

    if pa.types.is_map(kind):
        return lambda value: None if value is None else list(value.items())
    if pa.types.is_string(kind):
        return lambda value: value if value is None or isinstance(value, str) else _cell_text(value)
    return lambda value: value


def _cell_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
