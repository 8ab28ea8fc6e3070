"""The OpenAPI description of the open routes, and a page that shows it without loading anything from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from hangtag.endpoint.tag import MAX_PRODUCTS, TagRequest, TagResponse

_REF = "#/components/schemas/{model}"
_OPENAI = "As in OpenAI's API; see docs/serving.md for the parameters that are open."
# (method, path): what it does. The only routes that answer; everything else that vLLM registers is closed.
ROUTES: dict[tuple[str, str], str] = {
    ("GET", "/health"): "Whether requests are taken: 200, or 503 while starting or stopping. Needs no key.",
    ("GET", "/metrics"): "Prometheus metrics of vLLM and of the endpoint.",
    ("GET", "/docs"): "This page.",
    ("GET", "/openapi.json"): "This description as JSON.",
    ("GET", "/v1/models"): "The names that requests may give as `model`.",
    (
        "POST",
        "/v1/chat/completions",
    ): f"A product as the one user message; the answer is JSON with its tags. {_OPENAI}",
    ("POST", "/v1/completions"): f"A product as the prompt, or several; answers are JSON with tags. {_OPENAI}",
    (
        "POST",
        "/v1/tag",
    ): f"Up to {MAX_PRODUCTS} products; taggings with confidences, in order, and a decision each.",
}
_ERRORS = {
    "400": "the request is wrong, the message says how",
    "401": "no or a wrong key",
    "413": "the body is too large",
    "415": "the body is not declared as JSON",
    "429": "too much at once: wait as Retry-After says",
    "503": "the engine failed, or the server stops",
    "504": "not answered in time",
}


def openapi_document(*, needs_key: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    for model in (TagRequest, TagResponse):
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    paths: dict[str, Any] = {}
    for (method, path), text in ROUTES.items():
        operation: dict[str, Any] = {"summary": text, "responses": {"200": {"description": "the answer"}}}
        if method == "POST":
            is_tag = path == "/v1/tag"
            body = {"$ref": _REF.format(model="TagRequest")} if is_tag else {"type": "object"}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
            if is_tag:
                operation["responses"]["200"]["content"] = {
                    "application/json": {"schema": {"$ref": _REF.format(model="TagResponse")}}
                }
            for status, meaning in _ERRORS.items():
                operation["responses"][status] = {
                    "description": meaning,
                    "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
                }
        elif path != "/health":
            operation["responses"]["401"] = {"description": _ERRORS["401"]}
        if path == "/health":
            operation["security"] = []
            operation["responses"]["503"] = {"description": "not ready"}
        paths.setdefault(path, {})[method.lower()] = operation
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "hangtag",
            "version": "1",
            "description": "Product tagging: every answer a correct set of tags of the shop's vocabulary.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if needs_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def docs_page(document: dict[str, Any]) -> str:
    """Return the description as an HTML page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>hangtag</title>",
        "<style>body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f4;padding:1rem;overflow:auto}h2{font-size:1.1rem}</style>",
        f"<h1>hangtag</h1><p>{html.escape(document['info']['description'])} As JSON: <code>/openapi.json</code>.",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(operation['summary'])}")
    for name, schema in document["components"]["schemas"].items():
        text = json.dumps(schema, ensure_ascii=False, indent=2)
        parts.append(f"<h2>{html.escape(name)}</h2><pre>{html.escape(text)}</pre>")
    return "\n".join(parts)
