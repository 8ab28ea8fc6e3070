"""The few pieces of ASGI that the endpoint needs: bodies with a limit, JSON answers, calls to the app behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# Ends when the client goes away.
Gone = Callable[[], Awaitable[object]]
Headers = Iterable[tuple[bytes, bytes]]

# What a request to the app behind takes over from the client's; all else could open something there.
_KEPT_HEADERS = (b"host", b"traceparent", b"tracestate", b"x-request-id")

_DISCARD_S = 2.0


class Refusal(Exception):
    """A request that is not served. `reason` is one word for the metrics, `message` tells the client."""

    def __init__(
        self, status: int, reason: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.param = param
        self.retry_after_s = retry_after_s


class Disconnected(Exception):
    """The client went away before its request was read."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of a request's header, None where it is absent; `name` in lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return a request's whole body.

    Raises:
        Refusal: it has more than `limit` bytes.
        Disconnected: the client went away.
    """
    declared = header(scope, b"content-length")
    too_large = Refusal(413, "body", f"the body has more than {limit} bytes; send fewer products a call")
    if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > limit):
        await _discard_body(receive, limit)
        raise too_large
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            if message.get("more_body"):
                await _discard_body(receive, limit)
            raise too_large
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _discard_body(receive: Receive, limit: int) -> None:
    """Read on for a moment and throw away: a client that is still sending would miss the answer otherwise."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while limit > 0:
                message = await receive()
                limit -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


def read_json(scope: Scope, body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body: strict JSON, Unicode that can be written again.

    Raises:
        Refusal: another content type, or no such object.
    """
    kind = (header(scope, b"content-type") or b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "invalid", "content-type: expected application/json")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid", f"the body is not JSON ({error!s:.100})") from None
    if not isinstance(document, dict):
        raise Refusal(400, "invalid", f"the body is a JSON {type(document).__name__}; expected an object")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def well_formed(text: str) -> str:
    """Return a text with `?` for each lone surrogate: JSON can escape one, but nothing can write it."""
    return text.encode(errors="replace").decode()


async def send_bytes(send: Send, status: int, kind: str, body: bytes, headers: Headers = ()) -> None:
    """Send a whole response."""
    fixed = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, document: Any, headers: Headers = ()) -> None:
    """Send a JSON response."""
    # A client's own text may come back in an error: what is no Unicode is replaced.
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    await send_bytes(send, status, "application/json", body, headers)


async def send_refusal(send: Send, refusal: Refusal, headers: Headers = ()) -> None:
    """Send an error as OpenAI's clients read it."""
    extra = list(headers)
    if refusal.retry_after_s is not None:
        extra.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if refusal.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    await send_json(send, refusal.status, error_document(refusal), extra)


def error_document(refusal: Refusal) -> dict[str, Any]:
    """Return the JSON of an error."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error")
    error = {"message": str(refusal), "type": kind, "param": refusal.param, "code": refusal.reason}
    return {"error": error}


@dataclass
class Reply:
    """The whole response of the app behind; `__call__` is the `send` that it is given."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def __call__(self, message: Message) -> None:
        """Take in a part of the response."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty one if it is none."""
        try:
            document = json.loads(bytes(self.body))
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


async def call(app: App, scope: Scope, path: str, document: Any, gone: Gone, send: Send) -> None:
    """POST `document` to a path of the app behind; `gone` ends when the client goes away."""
    body = json.dumps(document, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    inner = _inner_scope(scope, "POST", path, headers)
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone()
        return {"type": "http.disconnect"}

    await app(inner, receive, send)


async def is_healthy(app: App, scope: Scope) -> bool:
    """Whether the app behind says so at its `/health`."""
    reply = Reply()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await app(_inner_scope(scope, "GET", "/health", []), receive, reply)
    return reply.status == 200


def _inner_scope(scope: Scope, method: str, path: str, headers: Headers) -> Scope:
    """Return the scope of a request to the app behind, on behalf of the client's."""
    full_path = scope.get("root_path", "") + path
    kept = [(name, value) for name, value in scope["headers"] if name in _KEPT_HEADERS]
    return {
        **scope,
        "method": method,
        "path": full_path,
        "raw_path": full_path.encode(),
        "query_string": b"",
        "headers": [*kept, *headers],
        "state": dict(scope.get("state") or {}),
    }
