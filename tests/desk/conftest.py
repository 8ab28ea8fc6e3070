"""A catalogue run's folder with a queue, and desks over such folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk_reviewer import queue_rows, write_rows

from hangtag import TagVocabulary
from hangtag.tags import FacetLimits


@pytest.fixture
def shop_vocabulary(vocabulary: TagVocabulary) -> TagVocabulary:
    return vocabulary.with_limits({"colour": FacetLimits(max=1), "type": FacetLimits(max=2)})


@pytest.fixture
def out(tmp_path: Path, shop_vocabulary: TagVocabulary) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    shop_vocabulary.save(folder / "vocabulary.json")
    write_rows(folder / "review.jsonl", queue_rows(30))
    accepted = [row | {"id": f"s{n}", "confidences": [0.95, 0.99]} for n, row in enumerate(queue_rows(5))]
    write_rows(folder / "accepted_sample.jsonl", accepted)
    return folder


@pytest.fixture
def desk_of() -> Iterator[Any]:
    """Return a function that opens a folder's desk; all are closed at the end."""
    from hangtag.desk.serving import open_desk

    stores = []

    def opened(out: Path | None, data: Path | None = None, **options: Any) -> Any:
        given = {"store": None, "vocabulary": None, "token": None, "twice": 0.0} | options
        store, desk = open_desk(out, data, **given)
        stores.append(store)
        return desk

    yield opened
    for store in stores:
        store.close()
