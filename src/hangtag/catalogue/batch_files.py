"""Requests in the OpenAI batch format as products: what `--format openai-batch` reads.

A line is {"custom_id", "body": {"messages": […]}} with anything else beside it. The product is the text of the
last message of the user: a JSON object with the fields of a product, or plain text, which becomes the description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def product_of_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row that a batch request describes; its id is the `custom_id`.

    Without a message of a user the row has no text, and so is no product.
    """
    body = request.get("body")
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        messages = []
    asked = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    text = _text(asked[-1].get("content")) if asked else ""
    row: dict[str, Any] = {"description": text}
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and document.keys() & {"title", "description"}:
            row = {name: document.get(name) for name in ("title", "description", "attributes")}
    return row | {"id": request.get("custom_id")}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""
