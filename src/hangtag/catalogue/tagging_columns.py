"""Taggings as Arrow columns: the form in which parts are put together, copied and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from hangtag.tagging import ScoredTag, Tagging

_FEW_VALUES = ("status", "model", "vocabulary")


@cache
def answer_columns() -> Any:
    """Return the Arrow schema of a tagging without its id."""
    import pyarrow as pa

    fields = [("tag", pa.string()), ("facet", pa.string()), ("confidence", pa.float64()), ("id", pa.string())]
    tag = pa.struct(fields)
    return pa.schema(
        [
            ("tags", pa.list_(tag)),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("violations", pa.map_(pa.string(), pa.int64())),
            ("cut", pa.bool_()),
            ("model", pa.string()),
            ("vocabulary", pa.string()),
        ]
    )


def answers_table(taggings: Sequence[Tagging]) -> Any:
    """Return a table of `answer_columns`, one row a tagging; ids are left out."""
    import pyarrow as pa

    schema = answer_columns()
    names: list[str] = []
    facets: list[str] = []
    confidences: list[float | None] = []
    tag_ids: list[str | None] = []
    ends = [0]
    for tagging in taggings:
        for tag in tagging.tags:
            names.append(tag.tag)
            facets.append(tag.facet)
            confidences.append(tag.confidence)
            tag_ids.append(tag.id)
        ends.append(len(names))
    tag_type = schema.field("tags").type.value_type
    columns = zip((names, facets, confidences, tag_ids), tag_type, strict=True)
    tags = pa.StructArray.from_arrays(
        [pa.array(column, field.type) for column, field in columns], fields=list(tag_type)
    )
    violations = [tagging.violations for tagging in taggings]
    violation_ends = np.zeros(len(taggings) + 1, np.int32)
    np.cumsum([len(kinds) for kinds in violations], out=violation_ends[1:])
    return pa.table(
        [
            pa.ListArray.from_arrays(pa.array(ends, pa.int32()), tags),
            pa.array([tagging.status for tagging in taggings], pa.string()),
            pa.array([tagging.reason for tagging in taggings], pa.string()),
            pa.MapArray.from_arrays(
                pa.array(violation_ends, pa.int32()),
                pa.array([kind for kinds in violations for kind in kinds], pa.string()),
                pa.array([number for kinds in violations for number in kinds.values()], pa.int64()),
            ),
            pa.array([tagging.cut for tagging in taggings], pa.bool_()),
            pa.array([tagging.model for tagging in taggings], pa.string()),
            pa.array([tagging.vocabulary for tagging in taggings], pa.string()),
        ],
        schema=schema,
    )


def compact(table: Any) -> Any:
    """Return the table with columns of few values as dictionaries, for a file that is not compressed."""
    for name in _FEW_VALUES:
        position = table.schema.get_field_index(name)
        table = table.set_column(position, name, table.column(name).dictionary_encode())
    return table


def plain(table: Any) -> Any:
    """Return the answers of a table under `answer_columns`, also those of `compact` or an older version."""
    return with_cut(table).select(answer_columns().names).cast(answer_columns())


def with_cut(table: Any) -> Any:
    """Return the table with a column `cut`: those of releases before it have none."""
    import pyarrow as pa

    if "cut" in table.column_names:
        return table
    return table.append_column("cut", pa.array([False] * len(table), pa.bool_()))


def tagging_rows(table: Any) -> Iterator[dict[str, Any]]:
    """Yield each row of a part as a mapping, violations as a dict and the key as hexadecimal text.

    A tag without an id has none in its mapping.
    """
    for row in table.to_pylist():
        for tag in row["tags"]:
            if tag.get("id") is None:
                tag.pop("id", None)
        row["violations"] = dict(row["violations"] or ())
        if row.get("key") is not None:
            row["key"] = row["key"].hex()
        yield row


def to_taggings(ids: Iterable[str], table: Any) -> list[Tagging]:
    """Return the taggings in a table of answers."""
    return [
        Tagging(
            id=product_id,
            tags=tuple(ScoredTag(**tag) for tag in row["tags"]),
            **{name: row[name] for name in ("status", "reason", "violations", "cut", "model", "vocabulary")},
        )
        for product_id, row in zip(ids, tagging_rows(table), strict=True)
    ]
