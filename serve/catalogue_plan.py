"""What a catalogue takes, before it is spent: `--plan` measures a sample, `--dry-run` counts what is known."""

from __future__ import annotations

import sys
import time
from typing import Any

from hangtag import program
from hangtag.bulk.chunks import read_chunks
from hangtag.bulk.edition import Job, count_known
from hangtag.bulk.finish import Plan
from hangtag.bulk.keys import RowKeys
from hangtag.bulk.output import Output
from hangtag.catalogue.rows import count_rows
from hangtag.errors import DataError
from hangtag.product import Product
from serve.catalogue_tagger import CatalogueTagger


def measure(job: Job, tagger: CatalogueTagger, *, num_rows: int, rate: float | None) -> dict[str, Any]:
    """Tag the first distinct products of each file, in equal shares, and return what the whole catalogue takes.

    Nothing is written. The first tenth of the sample warms the engine up and is not timed.

    Raises:
        DataError: the files hold no product.
    """
    products = _sample(job, num_rows)
    stream, usage = tagger.load()
    warm = products[: len(products) // 10]
    list(stream(warm))
    before = usage.prompt_tokens, usage.output_tokens
    timed = products[len(warm) :]
    start = time.perf_counter()
    failed = sum(tagging.status != "ok" for tagging in stream(timed))
    seconds = time.perf_counter() - start
    counts = [count_rows(file) for file in job.files]
    rows = None if None in counts else sum(count or 0 for count in counts)
    prompt, output = (
        now - then for now, then in zip((usage.prompt_tokens, usage.output_tokens), before, strict=True)
    )
    per_product = {"prompt_tokens": prompt / len(timed), "output_tokens": output / len(timed)}
    document = {
        "sample": len(timed),
        "failed": failed,
        "products_per_s": round(len(timed) / seconds, 3),
        **{f"{name}_per_product": round(number, 1) for name, number in per_product.items()},
        "rows": rows,
        **({} if rows is None else {name: round(number * rows) for name, number in per_product.items()}),
        **_hours(rows, len(timed) / seconds, rate),
    }
    _say(document)
    return document


def foresee(output: Output, plan: Plan, *, rate: float | None) -> dict[str, Any]:
    """Return how many rows of a catalogue would be tagged, and what that takes at the speed of earlier runs."""
    if plan.is_done and plan.edition is not None:
        records = output.records[plan.edition.number].values()
        rows = sum(record.num_rows for record in records)
        counts: dict[str, Any] = {"rows": rows, "reused": rows, "to_tag": 0}
    else:
        with program.progress("reading", "row") as bar:
            counts = dict(count_known(output, plan.job, bar.update))
    document = counts | _hours(counts["to_tag"], _known_speed(output), rate)
    _say(document)
    return document


def _known_speed(output: Output) -> float | None:
    """Return products/s over all parts that the ledger holds, None if the engine tagged none."""
    seconds = sum(edition.seconds for edition in output.ledger.editions())
    tagged = sum(r.counts.get("tagged", 0) for records in output.records.values() for r in records.values())
    return tagged / seconds if tagged and seconds else None


def _hours(rows: int | None, products_per_s: float | None, rate: float | None) -> dict[str, Any]:
    if rows is None or not products_per_s:
        return {"hours": None, "cost": None}
    hours = rows / products_per_s / 3600
    return {"hours": round(hours, 3), "cost": None if rate is None else round(hours * rate, 2)}


def _sample(job: Job, num_rows: int) -> list[Product]:
    share = -(-num_rows // len(job.files))
    products: dict[bytes, Product] = {}
    for number in range(len(job.files)):
        # The files after it stand in for one without rows.
        files = [*job.files[number:], *job.files[:number]]
        chunks = read_chunks(files, job.reading, RowKeys(job.context), part_rows=share, interpret=job.interpret)
        chunk = next(chunks)
        chunks.close()
        for row, fields in enumerate(chunk.fields):
            if fields is not None:
                products[chunk.keys[row * 16 : row * 16 + 16]] = Product(**fields._asdict())
    if not products:
        raise DataError(f"{job.files[0].name}: no product among its first {share} rows; nothing to measure")
    return list(products.values())[:num_rows]


def _say(document: dict[str, Any]) -> None:
    for name, value in document.items():
        shown = "unknown" if value is None else f"{value:,}"
        print(f"{name.replace('_', ' '):>28}: {shown}", file=sys.stderr)
