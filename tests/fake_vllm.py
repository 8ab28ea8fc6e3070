"""vLLM's server as an ASGI app without a model, and the endpoint in front of it, for unit tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from typing import Any

import httpx
from fake_engine import ByteTokenizer
from prometheus_client import CollectorRegistry

from hangtag.constraint import TagConstraint
from hangtag.endpoint.app import Endpoint, Serving
from hangtag.endpoint.doors import KeyEntry, Keyring
from hangtag.endpoint.settings import EndpointSettings, VocabularySettings
from hangtag.endpoint.telemetry import Telemetry
from hangtag.endpoint.vocabularies import PromptOnlyEngine, ServedVocabulary, Vocabularies
from hangtag.engines.vllm_arguments import KEY, PREFIX, read_limits
from hangtag.language_model.examples import default_limits
from hangtag.language_model.generative import GenerativeTagger
from hangtag.language_model.prompt import Prompter
from hangtag.vocabulary import TagVocabulary

MAX_MODEL_LEN = 8192
EXTRA_ROUTES = ("/tokenize", "/invocations", "/pause", "/v1/embeddings")


class FakeVllm:
    """Answers as vLLM does. `constraints` are known by name; `bodies` collects what was asked.

    An answer takes `delay_s` a token; `num_running` counts requests that are worked on, `num_cancelled` those that
    were given up. `failure` is a status that every completion gets; `is_dead` is what `/health` says.
    """

    def __init__(self, constraints: dict[str, TagConstraint], *, delay_s: float = 0.0) -> None:
        self.constraints = constraints
        self.delay_s = delay_s
        self.failure: tuple[int, dict[str, Any]] | None = None
        self.is_dead = False
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.num_running = 0
        self.most_running = 0
        self.num_cancelled = 0
        self.cut_after: int | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        path = scope["path"]
        self.paths.append(path)
        if path == "/v1/completions" or path == "/v1/chat/completions":
            body = json.loads((await receive())["body"])
            self.bodies.append(body)
            self.num_running += 1
            self.most_running = max(self.most_running, self.num_running)
            try:
                await self._complete(path, body, send)
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
            finally:
                self.num_running -= 1
        elif path in ("/health", "/metrics", "/v1/models", *EXTRA_ROUTES):
            await _send_json(send, 503 if self.is_dead and path == "/health" else 200, {"path": path})
        else:
            await _send_json(send, 404, {"detail": "Not Found"})

    async def _complete(self, path: str, body: dict[str, Any], send: Any) -> None:
        if self.failure is not None:
            await _send_json(send, *self.failure)
            return
        if not body.get("vllm_xargs") or path == "/v1/chat/completions":
            await _send_json(send, 200, {"object": "raw", "asked": body})
            return
        steps = [
            self._steps(prompt, body, f"{number}.{choice}")
            for number, prompt in enumerate(body["prompt"])
            for choice in range(body.get("n", 1))
        ]
        if self.cut_after is not None:
            steps = [some[: self.cut_after] for some in steps]
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        head = {"id": "cmpl-1", "created": 7, "model": body["model"]}
        if not body.get("stream"):
            await asyncio.sleep(self.delay_s * max(map(len, steps)))
            choices = [_choice(index, some, "stop") for index, some in enumerate(steps)]
            await _send_json(send, 200, {**head, "choices": choices, "usage": usage})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(max(map(len, steps))):
            await asyncio.sleep(self.delay_s)
            for index, some in enumerate(steps):
                if at < len(some):
                    finish = "stop" if at + 1 == len(some) else None
                    data = json.dumps({**head, "choices": [_choice(index, some[at : at + 1], finish)]})
                    event = f"data: {data}\n\n".encode()
                    # Events do not come in parts of their own.
                    await send({"type": "http.response.body", "body": event[:9], "more_body": True})
                    await send({"type": "http.response.body", "body": event[9:], "more_body": True})
        end = f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end.encode(), "more_body": False})

    def _steps(self, prompt: list[int], body: dict[str, Any], seed: str) -> list[tuple[int, float]]:
        arguments = body["vllm_xargs"]
        constraint = self.constraints[arguments[KEY]]
        num_prefix = arguments.get(PREFIX, 0)
        prefix = prompt[len(prompt) - num_prefix :]
        has_stop = constraint.stop_token in body.get("stop_token_ids", ())
        state = constraint.start(
            max_tokens=body["max_tokens"] - (not has_stop), limits=read_limits(arguments), prefix=prefix
        )
        draw = random.Random(hashlib.sha256(bytes(token % 256 for token in prompt)).hexdigest() + seed)
        steps = []
        while not state.is_done:
            allowed = constraint.allowed(state)
            going_on = [int(token) for token in allowed if token not in b'"]'] or allowed.tolist()
            # Most answers should hold tags.
            token = draw.choice(going_on if draw.random() < 0.7 else allowed.tolist())
            constraint.advance(state, token)
            steps.append((token, -0.25 if len(allowed) > 1 else 0.0))
        return steps if has_stop and steps else [*steps, (256, 0.0)]


def _choice(index: int, steps: list[tuple[int, float]], finish: str | None) -> dict[str, Any]:
    ids = [token for token, _ in steps]
    texts = [ByteTokenizer().decode([token]) for token in ids]
    logprobs = {
        "tokens": texts,
        "token_logprobs": [logprob for _, logprob in steps],
        "top_logprobs": [{text: logprob} for text, (_, logprob) in zip(texts, steps, strict=True)],
        "text_offset": [0] * len(ids),
    }
    return {"index": index, "text": "", "token_ids": ids, "logprobs": logprobs, "finish_reason": finish}


async def _send_json(send: Any, status: int, document: Any) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
    )
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


class Shop:
    """The endpoint before `FakeVllm`, with the vocabularies `shop` (default) and `other`."""

    def __init__(
        self,
        vocabulary: TagVocabulary,
        *,
        keys: list[KeyEntry] | None = None,
        delay_s: float = 0.0,
        **options: Any,
    ) -> None:
        other = TagVocabulary.from_json(["tea", "cup", "böhm", "杯"])
        engine = PromptOnlyEngine("hangtag-fake", ByteTokenizer(), MAX_MODEL_LEN)
        served = []
        for name, tags in (("shop", vocabulary), ("other", other)):
            prompter = Prompter(tags, ByteTokenizer())
            constraint = TagConstraint.compile(tags, ByteTokenizer(), cache=None)
            tagger = GenerativeTagger(engine, prompter, constraint=constraint, limits=default_limits(tags))
            served.append(ServedVocabulary(name, tagger, ByteTokenizer()))
        settings = EndpointSettings(
            model="fake",
            names=("hangtag", "hangtag-fake"),
            is_cpu=True,
            max_model_len=MAX_MODEL_LEN,
            vocabularies=(VocabularySettings(name="shop"),),
            needs_key=keys is not None,
            **options,
        )
        self.registry = CollectorRegistry()
        self.vocabularies = Vocabularies(served)
        self.vllm = FakeVllm({vocabulary.name: vocabulary.constraint for vocabulary in served}, delay_s=delay_s)
        self.serving = Serving(settings, self.vocabularies, Keyring(keys), Telemetry(self.registry))
        self.app = Endpoint(self.vllm, self.serving)

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Return a client that talks to the endpoint without a socket."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://shop.test", headers=headers)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """Send one request."""

        async def send() -> httpx.Response:
            async with self.client(**(headers or {})) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post(self, path: str, document: Any, **headers: str) -> httpx.Response:
        """Send one JSON document."""
        return self.ask("POST", path, json=document, headers=headers)

    def sample(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 where it has none yet."""
        return self.registry.get_sample_value(name, labels) or 0.0
