"""Parts: the files of an edition, each a run of rows in the order of the catalogue, and what stands beside each.

    OUT/parts-0001/part-000000.parquet   for readers: id, tags, status, reason, violations, model, vocabulary, key
    OUT/index/0001/part-000000.arrow     the same answers, not compressed, so that single rows can be taken out
    OUT/index/0001/000000-000015.keys    where each key stands (`hangtag.bulk.key_index`)
    OUT/index/0001/edition.json          what the ledger says of the edition, for the day the ledger is lost

Everything in index/ but edition.json can be made again from the parts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from hangtag.bulk.keys import key_bytes, keys_column
from hangtag.bulk.ledger import EditionRecord, PartRecord
from hangtag.catalogue.tagging_columns import answer_columns, answers_table, compact, plain, tagging_rows, with_cut
from hangtag.durable import Step, no_step, write_durably
from hangtag.errors import DataError
from hangtag.manifest import file_sha256
from hangtag.tagging import Tagging, to_answer

Format = Literal["parquet", "jsonl", "openai-batch"]
FORMATS: tuple[Format, ...] = ("parquet", "jsonl", "openai-batch")
_SUFFIX: dict[str, str] = {"parquet": ".parquet", "jsonl": ".jsonl", "openai-batch": ".jsonl"}
_RECORD = b"hangtag.part"
_OPEN_TABLES = 16


class PartFolder:
    """The files of one edition under an output folder."""

    def __init__(self, out: Path, edition: int, format: str) -> None:
        self.out = out
        self.edition = edition
        self.format = format
        self.parts = out / f"parts-{edition:04d}"
        self.index = out / "index" / f"{edition:04d}"
        self._tables: OrderedDict[int, Any] = OrderedDict()

    def part_path(self, number: int) -> Path:
        """Return where a part is."""
        return self.parts / f"part-{number:06d}{_SUFFIX[self.format]}"

    def table_path(self, number: int) -> Path:
        """Return where a part's answers are for taking rows out."""
        return self.index / f"part-{number:06d}.arrow"

    def begin(self, record: EditionRecord, *, step: Step = no_step) -> None:
        """Make the folders and write edition.json, without which the ledger could not be made again."""
        for folder in (self.parts, self.index):
            if folder.exists():
                # Left by a run that ended before the ledger knew of this edition.
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        text = json.dumps(asdict(record), ensure_ascii=False, indent=1)
        write_durably(self.index / "edition.json", [text.encode()], step=step)

    def write(self, table: Any, record: PartRecord, *, step: Step = no_step) -> PartRecord:
        """Write a part, then its index file; return the record with sizes and hash.

        `table` has the columns id, those of `answer_columns`, key, and any others for readers alone.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        data = encode(table, self.format)
        write_durably(self.part_path(record.number), [data], step=step)
        record = replace(record, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return replace(record, index_bytes=self._write_table(table, record, step))

    def _write_table(self, table: Any, record: PartRecord, step: Step) -> int:
        import pyarrow as pa

        table = compact(table.select(["id", *answer_columns().names, "key"]))
        table = table.replace_schema_metadata({_RECORD: record.to_json()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue()
        write_durably(self.table_path(record.number), [memoryview(data)], step=step)
        return int(data.size)

    def table(self, record: PartRecord) -> Any:
        """Return a part's ids, answers and keys, mapped into memory: rows cost nothing until they are used.

        Raises:
            DataError: the part is lost, and its index file too.
        """
        import pyarrow as pa

        if record.number in self._tables:
            self._tables.move_to_end(record.number)
            return self._tables[record.number]
        path = self.table_path(record.number)
        try:
            if path.stat().st_size != record.index_bytes:
                raise OSError("of another size")
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowException):
            table = compact(decode(self.part_path(record.number), self.format))
        self._tables[record.number] = table
        if len(self._tables) > _OPEN_TABLES:
            self._tables.popitem(last=False)
        return table

    def answers(self, record: PartRecord, rows: Sequence[int] | None = None) -> Any:
        """Return the answers of a part, or of some of its rows, under `answer_columns`."""
        import pyarrow as pa

        table = self.table(record)
        if rows is not None:
            table = table.take(pa.array(rows, pa.int64()))
        return plain(table)

    def keys(self, record: PartRecord) -> bytes:
        """Return a part's keys, one after another."""
        return key_bytes(self.table(record).column("key"))

    def lost(self, records: Iterable[PartRecord], *, thoroughly: bool = False) -> Iterator[tuple[PartRecord, str]]:
        """Yield each part that is missing or not as long as it was, and why; `thoroughly` reads and hashes all."""
        for record in records:
            path = self.part_path(record.number)
            try:
                size = path.stat().st_size
                if size != record.num_bytes:
                    yield record, f"{path}: {size} bytes, expected {record.num_bytes}"
                elif thoroughly and file_sha256(path) != record.sha256:
                    yield record, f"{path}: its content is not what was written"
            except OSError as error:
                yield record, f"{path}: {error.strerror or error}"

    def recovered(self) -> tuple[EditionRecord, list[PartRecord]] | None:
        """Return what the ledger said of this edition, read from its files; None if they do not tell."""
        import pyarrow as pa

        try:
            edition = EditionRecord(**json.loads((self.index / "edition.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        records = []
        for path in sorted(self.index.glob("part-*.arrow")):
            try:
                metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata
                record = PartRecord.from_json(metadata[_RECORD].decode())
            except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
                continue
            record = replace(record, index_bytes=path.stat().st_size)
            if not any(self.lost([record], thoroughly=True)):
                records.append(record)
        return edition, records

    def close(self) -> None:
        """Let the files go."""
        self._tables.clear()

    def remove(self) -> None:
        """Delete the edition's files."""
        self.close()
        for folder in (self.parts, self.index):
            shutil.rmtree(folder, ignore_errors=True)


def encode(table: Any, format: str) -> Any:
    """Return the bytes of a part. The same table gives the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    if format == "parquet":
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table.combine_chunks(), sink, compression="zstd")
        return memoryview(sink.getvalue())
    to_line = _batch_line if format == "openai-batch" else _tagging_line
    return b"".join(to_line(row) for row in tagging_rows(table))


def decode(path: Path, format: str) -> Any:
    """Return ids, answers and keys of a part. Raises DataError: it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet

    wanted = ["id", *answer_columns().names, "key"]
    try:
        if format == "parquet":
            table = pyarrow.parquet.read_table(path, use_threads=False)
            return with_cut(table).select(wanted)
        taggings, keys = [], []
        with path.open("rb") as stream:
            for line in stream:
                row = json.loads(line)
                if format == "openai-batch":
                    row = row["hangtag"]
                keys.append(bytes.fromhex(row.pop("key", None) or "00" * 16))
                fields = {name: row[name] for name in Tagging.model_fields if name in row}
                taggings.append(Tagging.model_validate(fields))
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: lost ({str(error).splitlines()[0]:.120}); repeat the command with --repair, which tags its "
            "rows again"
        ) from None
    table = answers_table(taggings).add_column(0, "id", pa.array([t.id for t in taggings], pa.string()))
    return table.append_column("key", keys_column(b"".join(keys)))


def _tagging_line(row: dict[str, Any]) -> bytes:
    row = {
        name: value for name, value in row.items() if name not in ("reason", "violations", "cut", "key") or value
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n"


def _batch_line(row: dict[str, Any]) -> bytes:
    """Return a line of the OpenAI batch output format; the whole tagging stands under `hangtag`."""
    line: dict[str, Any] = {"id": f"batch_req_{row.get('key') or 'none'}", "custom_id": row["id"]}
    if row["status"] == "ok":
        content = to_answer([tag["tag"] for tag in row["tags"]])
        message = {"role": "assistant", "content": content, "refusal": None}
        body = {
            "id": f"chatcmpl-{row.get('key') or 'none'}",
            "object": "chat.completion",
            "created": 0,
            "model": row["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        }
        line |= {"response": {"status_code": 200, "request_id": line["id"], "body": body}, "error": None}
    else:
        line |= {"response": None, "error": {"code": row["status"], "message": row["reason"]}}
    line["hangtag"] = {name: value for name, value in row.items() if value or name == "tags"}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n"
