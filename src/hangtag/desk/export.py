"""Decisions as files: today's CSV, JSON Lines, and Label Studio's JSON; `hangtag review import` reads them all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

from hangtag.bulk.review import COLUMNS
from hangtag.desk.store import Decided
from hangtag.vocabulary import TagVocabulary

ExportForm = Literal["csv", "jsonl", "label-studio"]
FORMS: tuple[ExportForm, ...] = get_args(ExportForm)
MEDIA = {"csv": "text/csv", "jsonl": "application/jsonl", "label-studio": "application/json"}
SUFFIX = {"csv": "csv", "jsonl": "jsonl", "label-studio": "json"}
_ALL = (*COLUMNS, "reviewer", "at", "comment")


def exported(decided: Iterable[Decided], vocabulary: TagVocabulary, form: ExportForm) -> Iterator[str]:
    """Yield the text of a file of decisions, oldest first: of a product's several the last counts.

    A CSV cell that a spreadsheet would take for a formula is no different from any other: import it as text.
    """
    if form == "label-studio":
        yield "["
        for number, one in enumerate(decided):
            yield (",\n" if number else "\n") + json.dumps(_task(one, vocabulary, number + 1), ensure_ascii=False)
        yield "\n]\n"
    elif form == "jsonl":
        for one in decided:
            yield json.dumps(_row(one), ensure_ascii=False) + "\n"
    else:
        yield from _csv(decided)


def _row(one: Decided) -> dict[str, Any]:
    product, tags = one.entry.product, one.entry.tags
    return {
        "id": product.id,
        "confidence": round(one.entry.confidence, 6),
        "title": product.title,
        "description": product.description,
        "attributes": product.attributes,
        "tags": [tag.tag for tag in tags],
        "confidences": [tag.confidence for tag in tags],
        "status": one.entry.status,
        "reason": None,
        "decision": one.decision,
        "new_tags": list(one.tags) if one.decision == "change" else "",
        "reviewer": one.reviewer,
        "at": one.at,
        "comment": one.comment,
    }


def _csv(decided: Iterable[Decided]) -> Iterator[str]:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_ALL)
    for one in decided:
        row = _row(one)
        writer.writerow(
            json.dumps(row[name], ensure_ascii=False) if isinstance(row[name], list | dict) else row[name]
            for name in _ALL
        )
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _task(one: Decided, vocabulary: TagVocabulary, number: int) -> dict[str, Any]:
    product = one.entry.product
    annotation = {
        "completed_by": {"email": one.reviewer},
        "was_cancelled": one.decision == "skip",
        "created_at": one.at,
        "result": _results(one.tags, vocabulary),
    }
    prediction = {
        "result": _results([tag.tag for tag in one.entry.tags if tag.tag in vocabulary], vocabulary),
        "score": round(one.entry.confidence, 6),
    }
    return {
        "id": number,
        "data": product.model_dump(exclude={"tags"}),
        "annotations": [annotation],
        "predictions": [prediction],
        "meta": {"comment": one.comment},
    }


def _results(tags: Iterable[str], vocabulary: TagVocabulary) -> list[dict[str, Any]]:
    by_facet: dict[str, list[str]] = {}
    for name in tags:
        by_facet.setdefault(vocabulary[name].facet if name in vocabulary else "", []).append(name)
    return [
        {"from_name": facet or "tags", "to_name": "text", "type": "choices", "value": {"choices": names}}
        for facet, names in by_facet.items()
    ]
