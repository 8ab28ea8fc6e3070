"""Label Studio's JSON: tasks with predictions to import, and exported tasks with annotations; as of version 1.13.

The labelling configuration that fits has a `<Text name="text" value="$text"/>` and
`<Choices name="tags" toName="text" choice="multiple">`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hangtag.formats.fields import Ungrouped
from hangtag.formats.rows import FIELDS


class LabelStudio(Ungrouped):
    """Products in the `data` of tasks; the tags are the last annotation's choices, or the prediction's."""

    name = "label-studio"
    shown = "Label Studio tasks"
    tag_columns: tuple[str, ...] = ("annotations",)

    def matches(self, names: frozenset[str]) -> bool:
        """Return whether rows are tasks."""
        return "data" in names and bool(names & {"annotations", "predictions"})

    def fields(self, row: Mapping[str, Any], label: str | None) -> Mapping[str, Any]:
        """Return the product of a task; what its data holds beside a product's fields is not read."""
        data = row.get("data")
        fields = {name: data.get(name) for name in FIELDS} if isinstance(data, dict) else {}
        fields["title"] = fields.get("title") or (data.get("text") if isinstance(data, dict) else None)
        fields["tags"] = _choices(row)
        return fields


def _choices(row: Mapping[str, Any]) -> list[str] | None:
    for name in ("annotations", "predictions"):
        given = row.get(name)
        if isinstance(given, list) and given and isinstance(given[-1], dict):
            results = given[-1].get("result") or ()
            return [tag for result in results for tag in (result.get("value") or {}).get("choices") or ()]
    return None


def task(fields: Mapping[str, Any], text: str, tags: list[str], score: float | None, model: str) -> dict[str, Any]:
    """Return a task with the tags as a prediction, for import; `score` is in [0, 1]."""
    result = {"from_name": "tags", "to_name": "text", "type": "choices", "value": {"choices": tags}}
    prediction: dict[str, Any] = {"model_version": model, "result": [result]}
    if score is not None:
        prediction["score"] = score
    return {"data": {**fields, "text": text}, "predictions": [prediction]}
