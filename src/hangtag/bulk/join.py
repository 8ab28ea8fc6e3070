"""The catalogue as it was read, with the tags beside it: `--join FILE`.

Columns `tags` (list of text), `tag_confidences` (list of numbers) and `tag_status` are added; a column of the
input with one of these names gives way. A row that could not be read at all has nothing but its name and these.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from hangtag.bulk.edition import Job
from hangtag.bulk.ledger import EditionRecord
from hangtag.bulk.output import Output
from hangtag.bulk.rejoin import rows_with_answers
from hangtag.bulk.writer import write_failure
from hangtag.catalogue.tagging_columns import plain
from hangtag.durable import sync_folder
from hangtag.errors import DataError

ADDED = ("tags", "tag_confidences", "tag_status")
_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")
JoinedRow = dict[str, Any]


def check_target(path: Path) -> str:
    """Return the kind of file that `path` names. Raises DataError: it is of another kind."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    if kind not in _KINDS or (suffixes[-1] == ".gz" and kind == ".parquet"):
        raise DataError(
            f"--join {path}: expected a name that ends in .parquet, .csv or .jsonl (the last two also .gz)"
        )
    return kind


def write_joined(output: Output, edition: EditionRecord, job: Job, path: Path) -> None:
    """Write the joined catalogue, whole or not at all.

    Raises:
        DataError: the input is gone, or the file cannot be written.
    """
    kind = check_target(path)
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(kind, _write_jsonl)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as raw:
            with ExitStack() as closing:
                stream: Any = raw
                if path.suffix.lower() == ".gz":
                    # Without a time, the same rows give the same bytes.
                    stream = closing.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename=""))
                write(stream, _joined(output, edition, job), job)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        sync_folder(path.resolve().parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_failure(path, error) from None


def _joined(output: Output, edition: EditionRecord, job: Job) -> Iterator[list[JoinedRow]]:
    for _, rows, table in rows_with_answers(output, edition, job):
        ids = table.column("id").to_pylist()
        answers = plain(table).select(["tags", "status"]).to_pylist()
        joined = []
        for (_, row), row_id, answer in zip(rows, ids, answers, strict=True):
            added = {
                "tags": [tag["tag"] for tag in answer["tags"]],
                "tag_confidences": [tag["confidence"] for tag in answer["tags"]],
                "tag_status": answer["status"],
            }
            known: JoinedRow = {job.columns.columns.get("id", "id"): row_id} if isinstance(row, str) else row
            joined.append({name: value for name, value in known.items() if name not in ADDED} | added)
        yield joined


def _write_jsonl(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job) -> None:
    for rows in parts:
        for row in rows:
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str)
            stream.write(text.encode("utf-8", "replace") + b"\n")


def _write_csv(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="", write_through=True)
    writer: Any = None
    names: list[str] = []
    for rows in parts:
        if writer is None:
            names = _names(rows, job)
            writer = csv.writer(text)
            writer.writerow(names)
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    text.flush()
    text.detach()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _write_parquet(stream: IO[bytes], parts: Iterator[list[JoinedRow]], job: Job) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    added = [
        pa.field("tags", pa.list_(pa.string())),
        pa.field("tag_confidences", pa.list_(pa.float64())),
        pa.field("tag_status", pa.string()),
    ]
    writer: Any = None
    fields: list[Any] = []
    for rows in parts:
        if writer is None:
            fields = _fields(rows, job) + added
            writer = pyarrow.parquet.ParquetWriter(stream, pa.schema(fields), compression="zstd")
        columns = []
        for field in fields:
            convert = _converter(field.type)
            columns.append(pa.array([convert(row.get(field.name)) for row in rows], field.type))
        writer.write_table(pa.table(columns, schema=pa.schema(fields)))
    writer.close()


def _fields(rows: list[JoinedRow], job: Job) -> list[Any]:
    """Return the columns with the types of the first file where it is Parquet, as text where it is not."""
    import pyarrow as pa
    import pyarrow.parquet

    first = job.files[0]
    if first.kind == ".parquet" and Path(first.path).is_file():
        return [field for field in pyarrow.parquet.read_schema(first.path) if field.name not in ADDED]
    return [pa.field(name, pa.string()) for name in _names(rows, job) if name not in ADDED]


def _names(rows: list[JoinedRow], job: Job) -> list[str]:
    """Return the columns of the first part; a column that first appears later is no column of a table."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return [*(name for name in names if name not in ADDED), *ADDED]


def _converter(kind: Any) -> Callable[[Any], Any]:
    import pyarrow as pa

    if pa.types.is_map(kind):
        return lambda value: None if value is None else list(value.items())
    if pa.types.is_string(kind):
        return lambda value: value if value is None or isinstance(value, str) else _cell_text(value)
    return lambda value: value


def _cell_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
