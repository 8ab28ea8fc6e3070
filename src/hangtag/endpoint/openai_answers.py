"""Chat and text completions, the answer: from vLLM's tokens to what an OpenAI client reads, whole or streamed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hangtag.endpoint.answers import Answer, Token, completion_logprobs, tokens_of
from hangtag.endpoint.asgi import App, Gone, Message, Refusal, Reply, Scope, Send, call, is_healthy, send_json
from hangtag.endpoint.openai_requests import Completion
from hangtag.endpoint.vocabularies import Begun, ServedVocabulary
from hangtag.product import Product

Finished = Callable[[ServedVocabulary, Product, Answer], None]

INNER = "/v1/completions"


async def pass_on(app: App, scope: Scope, path: str, body: dict[str, Any], gone: Gone, send: Send) -> None:
    """Let vLLM answer a request with its own format, as it is.

    vLLM takes an exception in its schema compiler for an error of the server (`{"$ref": "#"}` is one such schema).
    While the engine is well, it is the request's.

    Raises:
        Refusal: vLLM failed.
    """
    failed: Reply | None = None

    async def relay(message: Message) -> None:
        nonlocal failed
        if message["type"] == "http.response.start" and message["status"] == 500:
            failed = Reply()
        await (send if failed is None else failed)(message)

    await call(app, scope, path, body, gone, relay)
    if failed is None:
        return
    if not await is_healthy(app, scope):
        raise _inner_refusal(failed.status, {})
    raise Refusal(
        400, "engine", "vLLM fails at this request; try it without its own format", param="response_format"
    )


class Completing:
    """Answers one request through the app behind."""

    def __init__(self, app: App, scope: Scope, gone: Gone, finished: Finished) -> None:
        """`gone` ends when the client goes away; `finished` is told of every whole answer."""
        self._app = app
        self._scope = scope
        self._gone = gone
        self._finished = finished

    async def answer(self, request: Completion, prompts: Sequence[Begun], send: Send) -> None:
        """Send the response to `request`, whose products have these prompts.

        Raises:
            Refusal: vLLM refused the request or cut an answer off, or it breaks the client's schema.
        """
        body = request.ask.body(prompts, request.sampling) | {"model": request.model}
        answers = [
            Answer(request.ask, name=request.format.name, evidence=prompt.evidence)
            for prompt in prompts
            for _ in range(request.num_choices)
        ]
        if request.is_streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            relay = _StreamRelay(request, answers, send, self._done)
            await call(self._app, self._scope, INNER, body, self._gone, relay)
            relay.check()
        else:
            reply = Reply()
            await call(self._app, self._scope, INNER, body, self._gone, reply)
            document, texts = self._whole(request, answers, read_reply(reply))
            if request.format.schema is not None:
                # In a thread: a schema of a megabyte takes a while.
                await asyncio.to_thread(request.format.check, texts)
            await send_json(send, 200, document)

    def _done(self, request: Completion, index: int, answer: Answer) -> None:
        self._finished(request.vocabulary, request.products[index // request.num_choices], answer)

    def _whole(
        self, request: Completion, answers: Sequence[Answer], inner: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the response and the texts of its answers."""
        choices, texts = [], []
        for inner_choice in inner["choices"]:
            answer = answers[inner_choice["index"]]
            tokens = _take(request, answer, inner_choice)
            if not answer.is_whole:
                raise cut_off()
            self._done(request, inner_choice["index"], answer)
            tokens = answer.prefix_tokens(request.num_top) + tokens
            texts.append(answer.new_text())
            choices.append(_choice(request, inner_choice["index"], texts[-1], tokens, "stop"))
        return _document(request, inner, choices, is_chunk=False) | {"usage": inner.get("usage")}, texts


def read_reply(reply: Reply) -> dict[str, Any]:
    """Return vLLM's answer. Raises Refusal: it is an error, which goes on to the client in the same words."""
    document = reply.json()
    if reply.status == 200 and isinstance(document.get("choices"), list):
        return document
    raise _inner_refusal(reply.status, document)


def _inner_refusal(status: int, document: Mapping[str, Any]) -> Refusal:
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    if 400 <= status < 500:
        return Refusal(status, "engine", f"vLLM refused the request: {message or 'no reason given'}"[:500])
    return Refusal(503, "engine", "the engine failed; try again", retry_after_s=5)


def cut_off() -> Refusal:
    """Return the refusal of an answer that ended before it was whole."""
    return Refusal(503, "cut", "the answer was cut off before it was whole; try again", retry_after_s=1)


def _take(request: Completion, answer: Answer, inner_choice: Mapping[str, Any]) -> list[Token]:
    """Take an inner choice's tokens into the answer and return them."""
    ids = inner_choice.get("token_ids") or []
    logprobs = inner_choice.get("logprobs") or {}
    num_taken = answer.add(ids, logprobs.get("token_logprobs") or [None] * len(ids))
    return tokens_of(logprobs, num_taken, request.num_top) if request.has_logprobs else []


def _choice(
    request: Completion, index: int, text: str, tokens: Sequence[Token], finish: str | None, *, offset: int = 0
) -> dict[str, Any]:
    logprobs: dict[str, Any] | None = None
    if request.has_logprobs:
        is_chat = request.kind == "chat"
        logprobs = (
            {"content": [token.to_json() for token in tokens]}
            if is_chat
            else completion_logprobs(tokens, offset=offset)
        )
    content: dict[str, Any] = {"text": text}
    if request.kind == "chat":
        content = {"message": {"role": "assistant", "content": text}}
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}


def _document(
    request: Completion, inner: Mapping[str, Any], choices: list[dict[str, Any]], *, is_chunk: bool
) -> dict[str, Any]:
    inner_id = str(inner.get("id", ""))
    kind = "text_completion"
    if request.kind == "chat":
        kind = "chat.completion.chunk" if is_chunk else "chat.completion"
        inner_id = f"chatcmpl-{inner_id.removeprefix('cmpl-')}"
    created = inner.get("created") or int(time.time())
    return {"id": inner_id, "object": kind, "created": created, "model": request.model, "choices": choices}


class _StreamRelay:
    """Turns vLLM's stream into the client's; it is the `send` that the app behind is given."""

    def __init__(
        self,
        request: Completion,
        answers: Sequence[Answer],
        send: Send,
        done: Callable[[Completion, int, Answer], None],
    ) -> None:
        self._request = request
        self._answers = answers
        self._send = send
        self._done = done
        self._status = 0
        self._error = Reply()
        self._rest = b""
        self._waiting: list[list[Token]] = [answer.prefix_tokens(request.num_top) for answer in answers]
        self._offsets = [0] * len(answers)
        self._is_begun = [False] * len(answers)
        self._has_ended = False

    def check(self) -> None:
        """Raise Refusal if nothing was sent, because vLLM refused the request."""
        if self._status != 200:
            raise _inner_refusal(self._error.status, self._error.json())

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status == 200:
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            else:
                await self._error(message)
            return
        if self._status != 200:
            await self._error(message)
            return
        *events, self._rest = (self._rest + message.get("body", b"")).split(b"\n\n")
        out = b"".join(self._event(event) for event in events)
        is_last = not message.get("more_body", False)
        if out or is_last:
            await self._send({"type": "http.response.body", "body": out, "more_body": not is_last})

    def _event(self, event: bytes) -> bytes:
        data = event.strip().removeprefix(b"data:").strip()
        if self._has_ended or not data or event.startswith(b":"):
            return b""
        if data == b"[DONE]":
            self._has_ended = True
            return _sse(b"[DONE]")
        inner = json.loads(data)
        if "choices" not in inner:
            return self._fail()
        out = b""
        for choice in inner["choices"]:
            out += self._chunk(inner, choice)
            if self._has_ended:
                return out
        if inner.get("usage") and not inner["choices"] and self._request.includes_usage:
            out += _sse(_document(self._request, inner, [], is_chunk=True) | {"usage": inner["usage"]})
        return out

    def _chunk(self, inner: Mapping[str, Any], inner_choice: Mapping[str, Any]) -> bytes:
        request, index = self._request, inner_choice["index"]
        answer, waiting = self._answers[index], self._waiting[index]
        waiting += _take(request, answer, inner_choice)
        if answer.has_failed or (inner_choice.get("finish_reason") and not answer.is_whole):
            return self._fail()
        out = b""
        if not self._is_begun[index] and request.kind == "chat":
            role = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            out += _sse(_document(request, inner, [role], is_chunk=True))
        self._is_begun[index] = True
        text = answer.new_text()
        finish = "stop" if inner_choice.get("finish_reason") else None
        if text or finish:
            choice = _choice(request, index, text, waiting, finish, offset=self._offsets[index])
            if request.kind == "chat":
                choice["delta"] = {"content": choice.pop("message")["content"]}
            self._offsets[index] += sum(len(token.text) for token in waiting)
            self._waiting[index] = []
            out += _sse(_document(request, inner, [choice], is_chunk=True))
        if finish:
            self._done(request, index, answer)
        return out

    def _fail(self) -> bytes:
        self._has_ended = True
        error = {"message": str(cut_off()), "type": "server_error", "param": None, "code": "cut"}
        return _sse({"error": error}) + _sse(b"[DONE]")


def _sse(data: bytes | Mapping[str, Any]) -> bytes:
    if not isinstance(data, bytes):
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return b"data: " + data + b"\n\n"
