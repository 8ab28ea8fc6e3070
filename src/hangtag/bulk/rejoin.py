"""A finished edition beside the rows it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hangtag.bulk.edition import Job
from hangtag.bulk.finish import ordered_records
from hangtag.bulk.ledger import EditionRecord, PartRecord
from hangtag.bulk.output import Output
from hangtag.catalogue.rows import CatalogueRows, Row
from hangtag.errors import DataError


def rows_with_answers(
    output: Output, edition: EditionRecord, job: Job, columns: set[str] | None = None
) -> Iterator[tuple[PartRecord, list[Row], Any]]:
    """Yield each part with its rows of the input and its table of id, answers and key, in order.

    `columns` limits what is read of Parquet input.

    Raises:
        DataError: the input has fewer rows than the edition.
    """
    rows = CatalogueRows(job.files, columns)
    folder = output.folders[edition.number]
    try:
        for record in ordered_records(output, edition):
            batch: list[Row] = []
            while len(batch) < record.num_rows:
                more = rows.read(record.num_rows - len(batch))
                if not more:
                    raise DataError(f"{job.files[-1].name}: fewer rows than were tagged; repeat the same command")
                batch += more
            yield record, batch, folder.table(record)
    finally:
        rows.close()
