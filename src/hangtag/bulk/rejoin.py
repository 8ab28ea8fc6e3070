"""A finished edition beside the rows it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hangtag.bulk.edition import Job
from hangtag.bulk.finish import ordered_records
from hangtag.bulk.ledger import EditionRecord, PartRecord
from hangtag.bulk.output import Output
from hangtag.catalogue.rows import CatalogueRows, ToFields
from hangtag.catalogue.tagging_columns import plain, to_taggings
from hangtag.errors import DataError
from hangtag.tagging import Tagging


class InputRow(NamedTuple):
    """A row of the input, and what turns it into the fields of a product (None where the job does that itself)."""

    row: dict[str, Any] | str
    to_fields: ToFields | None


def taggings_of(output: Output, edition: EditionRecord) -> Iterator[Tagging]:
    """Yield the taggings of an edition, in the order of its rows."""
    folder = output.folders[edition.number]
    for record in ordered_records(output, edition):
        table = folder.table(record)
        yield from to_taggings(table.column("id").to_pylist(), plain(table))


def rows_with_answers(
    output: Output, edition: EditionRecord, job: Job, *, is_whole: bool = True
) -> Iterator[tuple[PartRecord, list[InputRow], Any]]:
    """Yield each part with its rows of the input and its table of id, answers and key, in order.

    Not `is_whole`: of Parquet only those columns are read that a product is made of.

    Raises:
        DataError: the input has fewer rows than the edition.
    """
    reading = None if job.interpret else job.reading
    columns = None if is_whole or reading is None else reading.names
    rows = CatalogueRows(job.files, reading, columns=columns)
    folder = output.folders[edition.number]
    try:
        for record in ordered_records(output, edition):
            batch: list[InputRow] = []
            while len(batch) < record.num_rows:
                more = rows.read(record.num_rows - len(batch))
                if not more:
                    raise DataError(f"{job.files[-1].name}: fewer rows than were tagged; repeat the same command")
                to_fields = None if reading is None else rows.to_fields
                batch += [InputRow(row, to_fields) for _, row in more]
            yield record, batch, folder.table(record)
    finally:
        rows.close()
