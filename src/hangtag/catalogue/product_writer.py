"""Products with their tags in a new file: JSON Lines, CSV, Excel, Parquet, or tasks of Label Studio."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Protocol

from hangtag.catalogue.files import CatalogueFile
from hangtag.catalogue.rows import CatalogueRows
from hangtag.formats.label_studio import task
from hangtag.formats.rows import FIELDS, Reading
from hangtag.formats.workbook_writer import write_new_workbook
from hangtag.product import Product
from hangtag.tagging import Tagging


class Tagged(Protocol):
    """Tags that a product has after a change."""

    @property
    def after(self) -> tuple[str, ...]:
        """The tags."""


def write_products(
    file: CatalogueFile,
    reading: Reading,
    to: str,
    changes: Iterator[Tagged],
    taggings: Iterable[Tagging],
    stream: IO[bytes],
) -> None:
    """Write the products of a file that have a tagging, in order.

    `to` is csv, jsonl, xlsx, parquet or label-studio. `changes` holds their tags, one for each "ok" tagging.
    """
    found = _products(file, reading, changes, taggings)
    if to == "jsonl":
        stream.writelines(product.model_dump_json().encode() + b"\n" for product, _ in found)
    elif to == "csv":
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(_cells(product) for product, _ in found)
        text.detach()
    elif to == "xlsx":
        write_new_workbook(FIELDS, (_cells(product) for product, _ in found), stream)
    elif to == "parquet":
        _write_parquet([product for product, _ in found], stream)
    else:
        tasks = [_task(product, tagging) for product, tagging in found]
        stream.write(json.dumps(tasks, ensure_ascii=False, indent=1).encode() + b"\n")


def _products(
    file: CatalogueFile, reading: Reading, changes: Iterator[Tagged], taggings: Iterable[Tagging]
) -> Iterator[tuple[Product, Tagging]]:
    rows = CatalogueRows([file], reading)
    given = iter(taggings)
    try:
        while batch := rows.read(2048):
            to_fields = rows.to_fields
            for number, row in batch:
                tagging = next(given)
                if not isinstance(row, str) and tagging.status == "ok":
                    product = Product.from_row(to_fields(row), default_id=f"line-{number}")
                    yield product.model_copy(update={"tags": next(changes).after}), tagging
    finally:
        rows.close()


def _cells(product: Product) -> list[str]:
    attributes = json.dumps(product.attributes, ensure_ascii=False) if product.attributes else ""
    tags = json.dumps(product.tags or (), ensure_ascii=False)
    return [product.id, product.title, product.description, attributes, tags]


def _task(product: Product, tagging: Tagging) -> dict[str, Any]:
    fields = product.model_dump(exclude={"tags"})
    sure = [tag.confidence for tag in tagging.tags if tag.confidence is not None]
    return task(fields, product.text, list(product.tags or ()), min(sure) if sure else None, tagging.model)


def _write_parquet(products: Sequence[Product], stream: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    text = pa.string()
    schema = pa.schema(
        [
            ("id", text),
            ("title", text),
            ("description", text),
            ("attributes", pa.map_(text, text)),
            ("tags", pa.list_(text)),
        ]
    )
    rows = [product.model_dump() | {"attributes": list(product.attributes.items())} for product in products]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), stream, compression="zstd")
