from __future__ import annotations

import pyarrow as pa

from hangtag.catalogue.tagging_columns import (
    answer_columns,
    answers_table,
    compact,
    plain,
    tagging_rows,
    to_taggings,
)
from hangtag.tagging import ScoredTag, Tagging

TAGGINGS = [
    Tagging(
        id="1",
        tags=(ScoredTag(tag="red", facet="colour", confidence=0.5, id="166"), ScoredTag(tag="new")),
        model="m",
        vocabulary="v",
    ),
    Tagging(id="2", status="error", reason="broken", model="m", vocabulary="v"),
]


def test_taggings_come_back_with_their_ids() -> None:
    table = compact(answers_table(TAGGINGS))
    assert to_taggings(["1", "2"], plain(table)) == TAGGINGS
    first = next(tagging_rows(plain(table)))
    assert first["tags"][0]["id"] == "166"
    assert "id" not in first["tags"][1]


def test_parts_from_before_ids_are_read() -> None:
    table = answers_table(TAGGINGS[1:])
    fields = [field for field in answer_columns().field("tags").type.value_type if field.name != "id"]
    old_tags = pa.array([[{"tag": "red", "facet": "", "confidence": None}]], pa.list_(pa.struct(fields)))
    old = table.set_column(0, "tags", old_tags)
    assert to_taggings(["1"], plain(old))[0].tags == (ScoredTag(tag="red"),)
