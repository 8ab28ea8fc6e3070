"""Rows of a catalogue to taggings, and taggings to a file: JSON Lines, CSV or Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hangtag.catalogue.products import BadRow
from hangtag.catalogue.tagging_columns import answer_columns
from hangtag.errors import DataError
from hangtag.product import Product
from hangtag.tagging import Stream, Tagging, check_pair
from hangtag.vocabulary import TagVocabulary


def tag_rows(
    stream: Stream,
    rows: Iterable[Product | BadRow],
    *,
    model: str,
    vocabulary: TagVocabulary,
) -> Iterator[Tagging]:
    """Yield one tagging a row, in order: products through `stream`, bad rows as taggings of status "error".

    `stream` yields taggings in the order of its products and may read ahead; `model` and `vocabulary` go into
    the taggings of bad rows.

    Raises:
        EngineError: `stream` yields the tagging of another product, one too many or too few.
    """
    order: deque[BadRow | Product] = deque()

    def products() -> Iterator[Product]:
        for row in rows:
            order.append(row)
            if isinstance(row, Product):
                yield row

    def leading_bad_rows() -> Iterator[Tagging]:
        while order and isinstance(row := order[0], BadRow):
            order.popleft()
            yield Tagging(
                id=row.id, status="error", reason=row.reason, model=model, vocabulary=vocabulary.fingerprint
            )

    for tagging in stream(products()):
        yield from leading_bad_rows()
        check_pair(order.popleft().id if order else None, tagging)
        yield tagging
    yield from leading_bad_rows()
    check_pair(order[0].id if order else None, None)


_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")


class TaggingWriter:
    """Writes taggings in the order they come, as .jsonl, .jsonl.gz, .csv or .parquet by the file's name.

    A context manager. The file appears under its name on a clean exit; until then, and after a failure, it is
    `.NAME.partial` in the same folder. CSV puts tags and confidences as JSON lists into one column each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        kinds = [suffix.lower() for suffix in self.path.suffixes]
        self._kind = next((suffix for suffix in reversed(kinds) if suffix != ".gz"), "")
        if self._kind not in _KINDS or (kinds[-1] == ".gz" and self._kind == ".parquet"):
            raise DataError(f"{path}: expected a name that ends in .jsonl, .csv (also .gz) or .parquet")
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self.num_written = 0
        self._parquet: Any = None

    def __enter__(self) -> TaggingWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._kind == ".parquet":
                import pyarrow.parquet

                self._parquet = pyarrow.parquet.ParquetWriter(self._partial, _tagging_schema())
                return self
            raw = gzip.open(self._partial, "wb") if self.path.suffix == ".gz" else self._partial.open("wb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror or error})") from None
        self._stream = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        if self._kind == ".csv":
            self._csv = csv.writer(self._stream)
            self._csv.writerow(["id", "tags", "confidences", "status", "reason", "model", "vocabulary"])
        return self

    def write(self, taggings: Sequence[Tagging]) -> None:
        """Append taggings. Raises DataError when the disk is full or the file cannot be written."""
        try:
            if self._kind == ".parquet":
                import pyarrow

                rows = [_tagging_row(tagging) for tagging in taggings]
                self._parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_tagging_schema()))
            elif self._kind == ".csv":
                self._csv.writerows(_csv_tagging(tagging) for tagging in taggings)
            else:
                self._stream.writelines(tagging.to_json() + "\n" for tagging in taggings)
            self.num_written += len(taggings)
        except OSError as error:
            raise self._failure(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            (self._parquet if self._kind == ".parquet" else self._stream).close()
            if kind is None:
                os.replace(self._partial, self.path)
        except OSError as failure:
            if kind is None:
                raise self._failure(failure) from None

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path}: writing failed after {self.num_written} taggings ({error.strerror or error}); "
            f"what was written is in {self._partial}"
        )


def _tagging_row(tagging: Tagging) -> dict[str, Any]:
    return tagging.model_dump() | {"violations": list(tagging.violations.items())}


def _csv_tagging(tagging: Tagging) -> list[str]:
    confidences = [tag.confidence for tag in tagging.tags]
    return [
        tagging.id,
        json.dumps(tagging.names, ensure_ascii=False),
        json.dumps(confidences),
        tagging.status,
        tagging.reason or "",
        tagging.model,
        tagging.vocabulary,
    ]


def _tagging_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("id", pa.string()), *answer_columns()])
