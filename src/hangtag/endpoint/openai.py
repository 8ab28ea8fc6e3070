"""Chat and text completions: from a client's body to vLLM's, and from vLLM's answer to the client's.

A request is a product: the one user message of a chat, the prompt (or each of several) of a completion. It
becomes a text completion of token ids under the constraint. A request that brings its own `response_format` or
`structured_outputs` goes to vLLM as it is. Either way only the parameters listed here are open.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hangtag.endpoint.answers import Answer, Token, completion_logprobs, tokens_of
from hangtag.endpoint.asgi import App, Gone, Message, Refusal, Reply, Scope, Send, call, is_healthy, send_json
from hangtag.endpoint.settings import EndpointSettings
from hangtag.endpoint.vocabularies import Ask, ServedVocabulary, Vocabularies, check_arguments, read_product
from hangtag.product import Product
from hangtag.taggers.vllm_arguments import KEY

Kind = Literal["chat", "text"]
Finished = Callable[[ServedVocabulary, Product, Answer], None]

INNER = "/v1/completions"
MAX_CHOICES, MAX_PROMPTS, MAX_LOGPROBS = 8, 256, 20
# Go on to vLLM, which checks them.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "n", "presence_penalty", "frequency_penalty")
# Read here.
_READ = ("model", "messages", "prompt", "stream", "stream_options", "logprobs", "top_logprobs", "max_tokens",
         "max_completion_tokens", "vllm_xargs")  # fmt: skip
# Say nothing that could change an answer.
_IGNORED = ("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key",
            "parallel_tool_calls", "verbosity")  # fmt: skip
_OWN_FORMAT = ("response_format", "structured_outputs")
_OPEN_WITH_OWN_FORMAT = (*_SAMPLING, *_READ, *_IGNORED, *_OWN_FORMAT, "stop", "logit_bias", "repetition_penalty")


_ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Completion:
    """A client's request, read: products and how to answer."""

    kind: Kind
    model: str
    vocabulary: ServedVocabulary
    ask: Ask
    products: tuple[Product, ...]
    sampling: dict[str, Any]
    num_choices: int
    is_streamed: bool
    includes_usage: bool
    has_logprobs: bool
    num_top: int

    @property
    def num_answers(self) -> int:
        """How many answers vLLM writes."""
        return len(self.products) * self.num_choices


def has_own_format(body: Mapping[str, Any]) -> bool:
    """Whether a request brings its own format and so goes to vLLM as it is."""
    return any(body.get(name) is not None for name in _OWN_FORMAT)


def check_own_format(body: dict[str, Any], kind: Kind, settings: EndpointSettings) -> int:
    """Return how many answers a request with its own format asks for, once it may go on to vLLM.

    Raises:
        Refusal: the server answers with tags only, a parameter is not open, or would harm the server.
    """
    if settings.only_tags:
        raise Refusal(
            400, "invalid", "response_format: this server answers with tags only", param="response_format"
        )
    for name, value in body.items():
        if name not in _OPEN_WITH_OWN_FORMAT and value not in (None, [], {}, False):
            raise Refusal(400, "invalid", f"{name:.80}: not open at this server", param=name[:80])
    for name in [name for name in body if name not in _OPEN_WITH_OWN_FORMAT]:
        del body[name]
    if body.get("vllm_xargs"):
        raise Refusal(400, "invalid", "vllm_xargs: tags and an own format exclude each other", param="vllm_xargs")
    _check_shapes(body, kind)
    _model(body, settings)
    _refuse_seed(body, settings, temperature=1.0)
    prompts = body.get("prompt")
    num_prompts = len(prompts) if kind == "text" and isinstance(prompts, list) else 1
    if num_prompts > MAX_PROMPTS:
        raise Refusal(400, "invalid", f"prompt: expected at most {MAX_PROMPTS}", param="prompt")
    _logprobs(body, kind)
    num_choices: int = _integer(body, "n", 1, 1, MAX_CHOICES)
    return num_choices * max(1, num_prompts)


def _check_shapes(body: dict[str, Any], kind: Kind) -> None:
    """Refuse what vLLM's own checks stumble over: it would answer with an error of the server."""
    for name in ("response_format", "structured_outputs", "stream_options", "logit_bias"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise Refusal(400, "invalid", f"{name}: expected an object", param=name)
    if kind == "text":
        prompts = body["prompt"] if isinstance(body.get("prompt"), list) else [body.get("prompt")]
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise Refusal(400, "invalid", "prompt: expected a text, or a list of them", param="prompt")
        return
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Refusal(400, "invalid", "messages: expected a list of messages", param="messages")
    for message in messages:
        if message.get("role") not in _ROLES:
            raise Refusal(400, "invalid", f"messages: expected a role of {', '.join(_ROLES)}", param="messages")
        _text_of(message.get("content"))


def read_completion(
    body: Mapping[str, Any], kind: Kind, vocabularies: Vocabularies, settings: EndpointSettings
) -> Completion:
    """Return a client's request, read.

    Raises:
        Refusal: it is wrong; the message says what was expected.
    """
    for name, value in body.items():
        is_known = name in _SAMPLING or name in _READ or name in _IGNORED
        if not is_known and value not in (None, [], {}, False) and (name, value) not in _HARMLESS:
            raise Refusal(400, "invalid", f"{name:.80}: not open at this server", param=name[:80])
    arguments = check_arguments(body.get("vllm_xargs"))
    vocabulary = vocabularies.choose((body.get("vllm_xargs") or {}).get(KEY))
    limit_name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = _integer(body, limit_name, None, 1, 1 << 31)
    num_choices = _integer(body, "n", 1, 1, MAX_CHOICES)
    has_logprobs, num_top = _logprobs(body, kind)
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise Refusal(400, "invalid", "stream_options: expected an object", param="stream_options")
    _refuse_seed(body, settings, temperature=0.0)
    sampling = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if settings.is_cpu:
        # Greedy, so it changes nothing; but vLLM's CPU engine may die of it.
        sampling.pop("seed", None)
    sampling["logprobs"] = num_top
    return Completion(
        kind=kind,
        model=_model(body, settings),
        vocabulary=vocabulary,
        ask=vocabulary.ask(arguments, max_tokens),
        products=_products(body, kind),
        sampling=sampling,
        num_choices=num_choices,
        is_streamed=_boolean(body, "stream"),
        includes_usage=_boolean(stream_options, "include_usage"),
        has_logprobs=has_logprobs,
        num_top=num_top,
    )


_HARMLESS = (("tool_choice", "none"), ("tool_choice", "auto"), ("repetition_penalty", 1), ("best_of", 1))


def _products(body: Mapping[str, Any], kind: Kind) -> tuple[Product, ...]:
    param = "messages" if kind == "chat" else "prompt"
    contents: list[Any]
    if kind == "chat":
        messages = body.get("messages")
        if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
            got = f"{len(messages)} messages" if isinstance(messages, list) else "none"
            raise Refusal(
                400,
                "invalid",
                f"messages: got {got}, expected one, of role user: the product; the server brings the prompt",
                param=param,
            )
        if messages[0].get("role") != "user":
            raise Refusal(400, "invalid", "messages: expected the role user, with the product", param=param)
        contents = [_text_of(messages[0].get("content"))]
    else:
        prompt = body.get("prompt")
        contents = prompt if isinstance(prompt, list) else [prompt]
        if not 1 <= len(contents) <= MAX_PROMPTS or not all(isinstance(content, str) for content in contents):
            raise Refusal(
                400, "invalid", f"prompt: expected a product's text, or 1 to {MAX_PROMPTS} of them", param=param
            )
    products = []
    for number, content in enumerate(contents):
        try:
            products.append(read_product(content, number))
        except ValueError as error:
            raise Refusal(400, "invalid", f"{param}: {error}", param=param) from None
    return tuple(products)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "\n".join(texts)
    raise Refusal(400, "invalid", "messages: expected the product as text", param="messages")


def _model(body: Mapping[str, Any], settings: EndpointSettings) -> str:
    model = body.get("model", settings.names[0])
    if model is None:
        return settings.names[0]
    if model not in settings.names:
        names = ", ".join(settings.names)
        raise Refusal(404, "model", f"model: got {model!r:.80}, expected one of {names}", param="model")
    return str(model)


def _refuse_seed(body: Mapping[str, Any], settings: EndpointSettings, *, temperature: float) -> None:
    given = body.get("temperature")
    if settings.is_cpu and body.get("seed") is not None and (temperature if given is None else given) != 0:
        raise Refusal(
            400, "invalid", "seed: vLLM on a CPU takes none at a temperature above 0; leave it out", param="seed"
        )


def _integer(body: Mapping[str, Any], name: str, default: Any, low: int, high: int) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refusal(400, "invalid", f"{name}: got {value!r:.40}, expected {low} to {high}", param=name)
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, "invalid", f"{name}: got {value!r:.40}, expected true or false", param=name)
    return bool(value)


def _logprobs(body: Mapping[str, Any], kind: Kind) -> tuple[bool, int]:
    if kind == "text":
        number = _integer(body, "logprobs", None, 0, MAX_LOGPROBS)
        return number is not None, number or 0
    is_wanted = _boolean(body, "logprobs")
    number = _integer(body, "top_logprobs", 0, 0, MAX_LOGPROBS)
    if number and not is_wanted:
        raise Refusal(400, "invalid", "top_logprobs: expected logprobs: true beside it", param="top_logprobs")
    return is_wanted, number


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

    async def answer(self, request: Completion, prompts: Sequence[Sequence[int]], send: Send) -> None:
        """Send the response to `request`, whose products have these prompts.

        Raises:
            Refusal: vLLM refused the request or cut an answer off.
        """
        body = request.ask.body(prompts, request.sampling) | {"model": request.model}
        answers = [Answer(request.ask) for _ in range(request.num_answers)]
        if request.is_streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            relay = _StreamRelay(request, answers, send, self._done)
            await call(self._app, self._scope, INNER, body, self._gone, relay)
            relay.check()
        else:
            reply = Reply()
            await call(self._app, self._scope, INNER, body, self._gone, reply)
            await send_json(send, 200, self._whole(request, answers, read_reply(reply)))

    def _done(self, request: Completion, index: int, answer: Answer) -> None:
        self._finished(request.vocabulary, request.products[index // request.num_choices], answer)

    def _whole(self, request: Completion, answers: Sequence[Answer], inner: Mapping[str, Any]) -> dict[str, Any]:
        choices = []
        for inner_choice in inner["choices"]:
            answer = answers[inner_choice["index"]]
            tokens = _take(request, answer, inner_choice)
            if not answer.is_whole:
                raise cut_off()
            self._done(request, inner_choice["index"], answer)
            tokens = answer.prefix_tokens(request.num_top) + tokens
            choices.append(_choice(request, inner_choice["index"], answer.new_text(), tokens, "stop"))
        return _document(request, inner, choices, is_chunk=False) | {"usage": inner.get("usage")}


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
