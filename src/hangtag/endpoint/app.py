"""The middleware that vLLM's server is started with: `--middleware hangtag.endpoint.app.Endpoint`.

It is the outermost layer. Only the routes in `openapi.ROUTES` answer, and only to those who bring a key where
one is needed; what vLLM registers beside them is closed, whatever a later version adds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hangtag.endpoint.answers import Answer
from hangtag.endpoint.asgi import (
    App,
    Disconnected,
    Message,
    Receive,
    Refusal,
    Scope,
    Send,
    error_document,
    header,
    read_body,
    read_json,
    send_bytes,
    send_json,
    send_refusal,
    well_formed,
)
from hangtag.endpoint.control import Control
from hangtag.endpoint.doors import Client, Keyring, Load, load_keys
from hangtag.endpoint.masking import masker
from hangtag.endpoint.openai_answers import Completing, pass_on
from hangtag.endpoint.openai_requests import Kind, check_own_format, is_passed_on, read_completion
from hangtag.endpoint.openapi import ROUTES, docs_page, openapi_document
from hangtag.endpoint.settings import KEYS, EndpointSettings, settings_folder
from hangtag.endpoint.tag import TagRequest, TagRoute
from hangtag.endpoint.telemetry import Telemetry, process_telemetry
from hangtag.endpoint.vocabularies import ServedVocabulary, Vocabularies
from hangtag.errors import HangtagError
from hangtag.product import Product
from hangtag.tagging import Tagging

_log = logging.getLogger(__name__)
_COMPLETIONS: dict[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "text"}
_PATHS = {path for _, path in ROUTES}


class Serving:
    """What the middleware works with once everything is loaded."""

    def __init__(
        self,
        settings: EndpointSettings,
        vocabularies: Vocabularies,
        keys: Keyring,
        telemetry: Telemetry,
        *,
        is_warm: bool = True,
    ) -> None:
        self.settings = settings
        self.vocabularies = vocabularies
        self.keys = keys
        self.telemetry = telemetry
        self.load = Load(settings.max_in_flight)
        self.num_requests = 0
        self.is_warm = is_warm
        self.control: Control | None = None
        self.mask: Callable[[str], str] | None = None
        if settings.log_products != "never":
            self.mask = masker(settings.log_products)
        self.tag_route = TagRoute(vocabularies, settings, self._count)
        self.document = openapi_document(needs_key=settings.needs_key)
        for vocabulary in vocabularies.by_name.values():
            telemetry.watch(vocabulary.name, vocabulary.vocabulary)

    @classmethod
    def load_all(cls, folder: Path) -> Serving:
        """Return what the settings in `folder` describe. Raises HangtagError: something is missing or wrong."""
        settings = EndpointSettings.load(folder)
        keys = Keyring(load_keys(folder / KEYS) if settings.needs_key else None)
        serving = cls(settings, Vocabularies.load(settings), keys, process_telemetry(), is_warm=False)
        serving.control = Control(folder, replace_keys=keys.replace, num_requests=lambda: serving.num_requests)
        return serving

    @property
    def is_draining(self) -> bool:
        """Whether the server stops: what is there is served, what comes is turned away."""
        return self.control is not None and self.control.is_draining

    def finished(self, vocabulary: ServedVocabulary, product: Product, answer: Answer) -> None:
        """Count a completion's answer."""
        tagging = vocabulary.read(product.id, answer.ids, answer.logprobs, answer.ask, answer.evidence)
        self._count(vocabulary.name, product, tagging)

    def _count(self, vocabulary: str, product: Product | None, tagging: Tagging) -> None:
        self.telemetry.tagging(vocabulary, tagging.status, tagging.tags, self.settings.threshold)
        if self.mask is not None and product is not None:
            names = ", ".join(tagging.names)
            _log.info(
                "product %r: %s", self.mask(product.text), names if tagging.status == "ok" else tagging.status
            )


class Endpoint:
    """The ASGI middleware; see the module."""

    def __init__(self, app: App, serving: Serving | None = None) -> None:
        """Wrap `app`; `serving` None loads everything when the server starts."""
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await _Exchange(self._app, self._serving, scope, receive, send).run()
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no such route"})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._serving is None:
            log_to_stderr()
            try:
                self._serving = Serving.load_all(settings_folder())
            except HangtagError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": f"hangtag: {error}"})
                return
        serving = self._serving
        tasks: list[asyncio.Task[None]] = []

        async def started(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete" and serving.control is not None:
                tasks.append(asyncio.create_task(serving.control.watch()))
                tasks.append(asyncio.create_task(self._warm_up(serving, scope)))

        try:
            await self._app(scope, receive, started)
        finally:
            for task in tasks:
                task.cancel()
            serving.vocabularies.close()

    async def _warm_up(self, serving: Serving, lifespan: Scope) -> None:
        """Tag one product with each vocabulary, until that succeeds: only then is the server ready.

        The first answer compiles what later ones use, and leaves the prompt's common part in the cache.
        """
        scope: Scope = {
            "type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "headers": [],
            "client": None, "server": None, "app": lifespan.get("app"), "state": lifespan.get("state"),
        }  # fmt: skip
        route = TagRoute(serving.vocabularies, serving.settings, lambda *_: None)
        for name in serving.vocabularies.by_name:
            request = TagRequest(products=["A product"], vocabulary=name)
            while True:
                response = None
                with contextlib.suppress(Refusal):
                    response = await route.answer(request, self._app, scope, asyncio.Event().wait)
                if response is not None and response.taggings[0].status == "ok":
                    break
                _log.warning("not ready: %s", response.taggings[0].reason if response else "the engine refuses")
                await asyncio.sleep(1)
        serving.is_warm = True


def log_to_stderr() -> None:
    """Write the endpoint's log to stderr: vLLM sets up its own loggers only, and this one would be silent."""
    logger = logging.getLogger("hangtag")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Exchange:
    """One HTTP request and its answer."""

    def __init__(self, app: App, serving: Serving | None, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._serving = serving
        self._scope = scope
        self._receive = receive
        self._client_send = send
        self._status = 0
        self._is_stream = False
        self._has_ended = False
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        self._path = path[len(root) :] if root and path.startswith(root + "/") else path
        self._method: str = scope["method"]
        self._client = Client("")
        self._gone: asyncio.Event = asyncio.Event()

    async def run(self) -> None:
        start = time.monotonic()
        try:
            if self._serving is None:
                raise Refusal(503, "starting", "the server is starting", retry_after_s=5)
            await self._route(self._serving)
        except Refusal as refusal:
            await self._refuse(refusal)
        except Disconnected:
            self._count_rejected("disconnected")
        except Exception:
            # The request's text is not shown: the traceback names code only.
            _log.exception("a request to %s failed", self._path if self._path in _PATHS else "another route")
            await self._refuse(Refusal(500, "internal", "an error of the server; it has been logged"))
        if self._serving is not None and self._status:
            self._record(self._serving, time.monotonic() - start)

    def _record(self, serving: Serving, seconds: float) -> None:
        route = self._path if self._path in _PATHS else "other"
        serving.telemetry.requests.labels(route, str(self._status)).inc()
        if self._method == "POST":
            serving.telemetry.seconds.labels(route).observe(seconds)
        if route not in ("/health", "/metrics"):
            _log.info(
                "%s %s %d %.0f ms %s", self._method[:8], route, self._status, seconds * 1e3, self._client.name
            )

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._has_ended = not message.get("more_body", False)
        await self._client_send(message)

    async def _refuse(self, refusal: Refusal) -> None:
        self._count_rejected(refusal.reason)
        if not self._status:
            headers = [(b"connection", b"close")] if refusal.status in (413, 503) else []
            await send_refusal(self._send, refusal, headers)
        elif not self._has_ended:
            # The stream has begun: the error is its last event.
            data = json.dumps(error_document(refusal)).encode()
            body = b"data: " + data + b"\n\ndata: [DONE]\n\n" if self._is_stream else b""
            await self._send({"type": "http.response.body", "body": body})

    def _count_rejected(self, reason: str) -> None:
        if self._serving is not None:
            self._serving.telemetry.rejected.labels(reason).inc()

    async def _route(self, serving: Serving) -> None:
        if (self._method, self._path) == ("GET", "/health"):
            if serving.is_draining:
                raise Refusal(503, "draining", "the server stops", retry_after_s=5)
            if not serving.is_warm:
                raise Refusal(503, "starting", "the server warms up", retry_after_s=5)
            await self._app(self._scope, self._receive, self._send)
            return
        self._client = serving.keys.identify(header(self._scope, b"authorization"))
        if (self._method, self._path) not in ROUTES:
            is_known = self._path in _PATHS
            what = f"{self._method[:16]} is not for this route" if is_known else "no such route; see /docs"
            raise Refusal(405 if is_known else 404, "route", what)
        if self._method == "POST":
            await self._post(serving)
        elif self._path == "/docs":
            page = docs_page(serving.document).encode()
            policy = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")
            await send_bytes(self._send, 200, "text/html; charset=utf-8", page, [policy])
        elif self._path == "/openapi.json":
            await send_json(self._send, 200, serving.document)
        else:
            serving.telemetry.in_flight.set(serving.load.num_products)
            await self._app(self._scope, self._receive, self._send)

    async def _post(self, serving: Serving) -> None:
        """Read the body, then work on it until it is answered, the client goes away or the time is over."""
        if serving.is_draining:
            raise Refusal(503, "draining", "the server stops; ask another one", retry_after_s=5)
        serving.num_requests += 1
        try:
            async with asyncio.timeout(serving.settings.timeout_s):
                body = await read_body(self._scope, self._receive, serving.settings.max_body_bytes)
                document = read_json(self._scope, body)
                work = asyncio.create_task(self._work(serving, document))
                leaving = asyncio.create_task(self._wait_until_gone())
                try:
                    await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        raise Disconnected
                    work.result()
                finally:
                    for task in (work, leaving):
                        task.cancel()
                    await asyncio.gather(work, leaving, return_exceptions=True)
        except TimeoutError:
            message = f"not answered within {serving.settings.timeout_s:g} s"
            raise Refusal(504, "timeout", message) from None
        finally:
            serving.num_requests -= 1

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def _work(self, serving: Serving, body: dict[str, Any]) -> None:
        if self._path == "/v1/tag":
            await self._tag(serving, body)
        elif is_passed_on(body, serving.settings):
            num_answers = check_own_format(body, _COMPLETIONS[self._path], serving.settings)
            try:
                text = json.dumps(body, ensure_ascii=False)
            except RecursionError:
                text = "\ud800"
            if well_formed(text) != text:
                raise Refusal(400, "invalid", "the body is no well-formed Unicode, or nested too deeply")
            with _Place(serving, self._client, num_answers):
                await pass_on(self._app, self._scope, self._path, body, self._gone.wait, self._send)
        else:
            kind = _COMPLETIONS[self._path]
            request = read_completion(body, kind, serving.vocabularies, serving.settings)
            self._is_stream = request.is_streamed
            with _Place(serving, self._client, request.num_answers):
                prompts = []
                for prompt in await serving.vocabularies.begin(request.vocabulary, request.products):
                    if isinstance(prompt, str):
                        raise Refusal(400, "invalid", prompt)
                    prompts.append(prompt)
                completing = Completing(self._app, self._scope, self._gone.wait, serving.finished)
                await completing.answer(request, prompts, self._send)

    async def _tag(self, serving: Serving, body: dict[str, Any]) -> None:
        request = serving.tag_route.read(body)
        with _Place(serving, self._client, len(request.products)):
            response = await serving.tag_route.answer(request, self._app, self._scope, self._gone.wait)
        await send_bytes(self._send, 200, "application/json", response.to_json().encode())


class _Place:
    """A place for a request's products, while it is worked on."""

    def __init__(self, serving: Serving, client: Client, num_products: int) -> None:
        self._serving = serving
        self._client = client
        self._num_products = max(1, num_products)

    def __enter__(self) -> None:
        if self._client.limit is not None:
            self._client.limit.take(self._num_products)
        self._serving.load.enter(self._num_products)

    def __exit__(self, *_: object) -> None:
        self._serving.load.leave(self._num_products)
