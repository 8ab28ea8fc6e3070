from __future__ import annotations

import json
from pathlib import Path

import pytest

from hangtag import TagVocabulary
from hangtag.errors import DataError
from hangtag.recommend.items import read_items


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labelled_products_and_taggings_are_items(tmp_path: Path, vocabulary: TagVocabulary) -> None:
    rows: list[object] = [
        {"id": "p", "title": "Red shoes", "tags": ["red", "shoes"]},
        {"id": "q", "title": "Red hat", "tags": [{"tag": "red", "facet": "colour", "confidence": 0.5}]},
        {"id": "p", "tags": []},
        {"tags": ["red"]},
        {"id": "r", "tags": "red"},
    ]
    items = read_items(write(tmp_path / "items.jsonl", rows), vocabulary=vocabulary)
    assert items.ids == ("p", "q")
    assert items.num_bad == 3
    assert dict(zip(items.tags, items.facets, strict=True)) == {"red": "colour", "shoes": "type"}
    assert items.has_tag.toarray().tolist() == [[1, 1], [0.5, 0]]
    assert items.tags_of(0) == ["red", "shoes"]
    assert items.has_word.shape == (2, 1)


def test_no_item_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no items; expected rows with `id` and `tags`"):
        read_items(write(tmp_path / "items.jsonl", [{"tags": []}]))
