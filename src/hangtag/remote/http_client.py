"""Tags products through a server: hangtag's own endpoint, or any other that speaks OpenAI's API.

hangtag's endpoint is recognised by its route /v1/tag and asked through it: its prompt, its constraint, with
confidences. Of any other server chat completions are asked, under a JSON schema where it takes one, or under the
constraint where it is a vLLM with hangtag's plug-in and a constraint is named; the answers are checked here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import ValidationError

from hangtag.constraint import Limits, answer_schema, parse_answer
from hangtag.engines.vllm_arguments import to_arguments
from hangtag.errors import EngineError, MissingExtra
from hangtag.language_model.examples import NearestLabelled, default_limits
from hangtag.language_model.prompt import Budget, ChatPrompt, Prompter
from hangtag.language_model.shortlist import NearestVocabulary
from hangtag.product import Product, normalise_text
from hangtag.tagging import ScoredTag, Tagging, Usage, check_pair
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    import httpx

NUM_ATTEMPTS = 6
PATIENCE_S = 600.0
PRODUCTS_A_CALL = 16
_LONGEST_WAIT_S = 30.0
_PROMPT_BATCH = 32
# The server's tokenizer is not known here; a token of common text has about four characters.
_BUDGET = Budget(title=256, description=1024, attributes=512, vocabulary=6144, shortlist=60)


class CharacterTokens:
    """A tokenizer whose tokens are characters, for budgets where the model's own tokenizer is not at hand."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the code points of each text."""
        return [[ord(character) for character in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of code points."""
        return "".join(map(chr, ids))


@dataclass(frozen=True, slots=True)
class _Post:
    """A request to send; what comes back, or the error, is the answer to it."""

    path: str
    document: dict[str, Any]


# What is said to a server, without sending or waiting itself: it yields requests and seconds to wait, and is sent
# what came back. The same talk runs in threads and in an event loop.
_T = TypeVar("_T")
_Talk: TypeAlias = "Generator[_Post | float, httpx.Response | httpx.RequestError | None, _T]"


class HttpTagger:
    """Tags products with a model behind a server. See `Tagger`; `atag` and `astream` are for event loops.

    `usage` sums what the server reports. `is_endpoint` says whether the server is hangtag's own, None before the
    first call. `takes_schema` turns False once another server has refused a JSON schema; later requests go
    without. Every product gets exactly one tagging, however often a request is repeated. Tags of other servers
    carry no confidence.
    """

    def __init__(
        self,
        vocabulary: TagVocabulary,
        *,
        url: str,
        model: str,
        key: str | None = None,
        examples: Sequence[Product] = (),
        shots: int = 0,
        limits: Limits | None = None,
        constrained: bool = True,
        constraint: str | None = None,
        served_vocabulary: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        max_tokens: int = 256,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare requests to `url` (with its version, as in http://127.0.0.1:8000/v1).

        Before hangtag's endpoint, `served_vocabulary` chooses among its vocabularies, `limits` replace its own,
        and `examples` and `shots` are the server's affair. Before others, `shots` examples, the nearest of
        `examples`, stand in each prompt, and `constraint` is the constraint's name or digest at a vLLM with the
        plug-in. `constrained` False asks any server for free text. `concurrency` is the number of requests at one
        time. `transport`, `async_transport` and `sleep` replace the network and the clock.

        Raises:
            MissingExtra: httpx is not installed.
        """
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", "eval") from None
        self.name = model
        self.vocabulary = vocabulary
        self.usage = Usage()
        self.is_endpoint: bool | None = None if constrained and constraint is None else False
        self.takes_schema = constrained and constraint is None
        self._httpx = httpx
        self._url = url.rstrip("/")
        self._concurrency = concurrency
        self._max_tokens = max_tokens
        self._sleep = sleep
        self._limits = limits
        self._constraint = constraint
        self._served_vocabulary = served_vocabulary
        used = self._chat_limits = limits or default_limits(vocabulary, examples)
        self._arguments = None if constraint is None else to_arguments(constraint, used)
        self._schema = answer_schema(vocabulary, used)
        # Some engines refuse the request because of it, the others pass over it: repeats are counted here.
        del self._schema["properties"]["tags"]["uniqueItems"]
        self._prompter = Prompter(
            vocabulary,
            CharacterTokens(),
            shots=shots,
            nearest_examples=NearestLabelled(examples) if shots else None,
            nearest_tags=NearestVocabulary(vocabulary),
            budget=_BUDGET,
        )
        self._options: dict[str, Any] = {
            "timeout": timeout_s,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "limits": httpx.Limits(max_connections=concurrency),
        }
        self._async_transport = async_transport
        self._client = httpx.Client(transport=transport, **self._options)

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, in order; a product that the server refuses has status "error".

        Raises:
            EngineError: the server cannot be reached, keeps failing, knows neither key nor model, or tags with
                another vocabulary.
        """
        return list(self.stream(products))

    def stream(self, products: Iterable[Product]) -> Iterator[Tagging]:
        """Yield one tagging a product, in order, reading `products` only a little ahead. Raises as `tag`."""
        self._run(self._recognise())
        waiting: deque[Future[list[Tagging]]] = deque()
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for talk in self._talks(products):
                    waiting.append(pool.submit(self._run, talk))
                    while len(waiting) > 2 * self._concurrency:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for answer in waiting:
                    answer.cancel()

    async def atag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return what `tag` returns, without blocking the event loop. Raises as `tag`."""
        return [tagging async for tagging in self.astream(products)]

    async def astream(self, products: Iterable[Product]) -> AsyncIterator[Tagging]:
        """Yield what `stream` yields, without blocking the event loop. Raises as `tag`."""
        places = asyncio.Semaphore(self._concurrency)
        waiting: deque[asyncio.Task[list[Tagging]]] = deque()
        async with self._httpx.AsyncClient(transport=self._async_transport, **self._options) as client:

            async def one(talk: _Talk[list[Tagging]]) -> list[Tagging]:
                async with places:
                    return await self._arun(client, talk)

            await self._arun(client, self._recognise())
            talks = self._talks(products)
            try:
                # Prompts are written in a thread: finding examples may take a while.
                while (talk := await asyncio.to_thread(next, talks, None)) is not None:
                    waiting.append(asyncio.create_task(one(talk)))
                    while len(waiting) > 2 * self._concurrency:
                        for tagging in await waiting.popleft():
                            yield tagging
                while waiting:
                    for tagging in await waiting.popleft():
                        yield tagging
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    def _run(self, talk: _Talk[_T]) -> _T:
        answer: httpx.Response | httpx.RequestError | None = None
        while True:
            try:
                step = talk.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, _Post):
                try:
                    answer = self._client.post(self._url + step.path, json=step.document)
                except self._httpx.RequestError as error:
                    answer = error
            else:
                self._sleep(step)
                answer = None

    async def _arun(self, client: httpx.AsyncClient, talk: _Talk[_T]) -> _T:
        answer: httpx.Response | httpx.RequestError | None = None
        while True:
            try:
                step = talk.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result
            if isinstance(step, _Post):
                try:
                    answer = await client.post(self._url + step.path, json=step.document)
                except self._httpx.RequestError as error:
                    answer = error
            else:
                await asyncio.sleep(step)
                answer = None

    def _talks(self, products: Iterable[Product]) -> Iterator[_Talk[list[Tagging]]]:
        iterator = iter(products)
        while batch := list(islice(iterator, PRODUCTS_A_CALL if self.is_endpoint else _PROMPT_BATCH)):
            if self.is_endpoint:
                yield self._tag_by_endpoint(batch)
                continue
            prompts = self._prompter.prompts(batch)
            self.usage.num_cut += sum(prompt.is_cut for prompt in prompts)
            for product, prompt in zip(batch, prompts, strict=True):
                yield self._tag_by_chat(product, prompt)

    def _ask(self, post: _Post) -> _Talk[httpx.Response]:
        """Return the response to a request, repeated while that may help.

        A server that is reached but has no room (429) is asked again for `PATIENCE_S`; other failures, and no
        connection, `NUM_ATTEMPTS` times. Waits grow twofold and are spread at random, and are never shorter than
        the server asks for.
        """
        url = self._url + post.path
        waited, num_failures, attempt = 0.0, 0, 0
        while True:
            response = yield post
            assert response is not None
            wait = min(_LONGEST_WAIT_S, 0.5 * 2**attempt) * random.uniform(0.5, 1.5)
            attempt += 1
            if not isinstance(response, self._httpx.Response):
                num_failures += 1
                problem = f"{type(response).__name__}: {response}"
            elif response.status_code in (401, 403):
                raise EngineError(f"{url}: {response.status_code} ({response.text:.200}); check the key")
            elif response.status_code != 429 and response.status_code < 500:
                return response
            else:
                num_failures += response.status_code != 429
                problem = f"status {response.status_code}: {response.text:.200}"
                # A server that is not there for a moment says so; many clients should not come back at once.
                wait = max(wait, _retry_after(response) * random.uniform(1.0, 1.25))
            if num_failures >= NUM_ATTEMPTS:
                raise EngineError(f"{url}: failed {num_failures} times ({problem}); is the server running?")
            waited += wait
            if waited > PATIENCE_S:
                raise EngineError(f"{url}: no room for {waited:.0f} s ({problem}); ask for less at one time")
            yield wait

    def _recognise(self) -> _Talk[None]:
        """Find out whether the server is hangtag's endpoint."""
        if self.is_endpoint is None:
            response = yield from self._ask(_Post("/tag", {"products": []}))
            self.is_endpoint = response.status_code == 200 and _object_of(response).get("taggings") == []

    def _tag_by_endpoint(self, products: Sequence[Product]) -> _Talk[list[Tagging]]:
        document: dict[str, Any] = {"products": [product.model_dump(exclude={"tags"}) for product in products]}
        if self._served_vocabulary is not None:
            document["vocabulary"] = self._served_vocabulary
        if self._limits is not None:
            document |= {"min_tags": self._limits.min_tags, "max_tags": self._limits.max_tags}
            if self._limits.only_facets is not None:
                document["only_facets"] = sorted(self._limits.only_facets)
            if self._limits.facets is not None:
                document["facets"] = {name: limit.model_dump() for name, limit in self._limits.facets.items()}
            document["with_parents"] = self._limits.with_parents
        response = yield from self._ask(_Post("/tag", document))
        if response.status_code != 200:
            reason = f"the server refused the request: {response.status_code} {response.text:.200}"
            return [self._tagging(product.id, status="error", reason=reason) for product in products]
        try:
            taggings = [
                Tagging.model_validate({name: value for name, value in row.items() if name != "decision"})
                for row in _object_of(response)["taggings"]
            ]
        except (LookupError, TypeError, AttributeError, ValidationError):
            reason = f"not taggings: {response.text:.200}"
            return [self._tagging(product.id, status="error", reason=reason) for product in products]
        if len(taggings) != len(products):
            raise EngineError(f"{self._url}: {len(taggings)} taggings for {len(products)} products")
        for tagging in taggings:
            if tagging.vocabulary != self.vocabulary.fingerprint:
                raise EngineError(
                    f"{self._url}: it tags with the vocabulary {tagging.vocabulary[:12]}, expected "
                    f"{self.vocabulary.fingerprint[:12]}; name another of its vocabularies, or take its file"
                )
        for product, tagging in zip(products, taggings, strict=True):
            # The endpoint normalises ids (that of 0.1.0 not those of errors); one that is missing is the position.
            own = normalise_text(product.id)
            if own and tagging.id not in (own, product.id):
                check_pair(product.id, tagging)
        return [
            tagging.model_copy(update={"id": product.id})
            for product, tagging in zip(products, taggings, strict=True)
        ]

    def _tag_by_chat(self, product: Product, prompt: ChatPrompt) -> _Talk[list[Tagging]]:
        with_schema = self.takes_schema
        response = yield from self._ask(_Post("/chat/completions", self._request(prompt, with_schema)))
        if with_schema and response.status_code in (400, 422) and _is_about_schema(response.text):
            self.takes_schema = False
            response = yield from self._ask(_Post("/chat/completions", self._request(prompt, False)))
        if response.status_code == 404:
            raise EngineError(
                f"{self._url}/chat/completions: 404 for model {self.name!r} ({response.text:.200}); "
                "check address and model"
            )
        tagging = self._read(product.id, response)
        return [tagging.model_copy(update={"cut": True}) if prompt.is_cut else tagging]

    def _request(self, prompt: ChatPrompt, with_schema: bool) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.name,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        if self._arguments is not None:
            request["vllm_xargs"] = self._arguments
        elif with_schema:
            schema = {"name": "tagging", "schema": self._schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _read(self, product_id: str, response: httpx.Response) -> Tagging:
        if response.status_code >= 400:
            reason = f"the server refused the request: {response.status_code} {response.text:.200}"
            return self._tagging(product_id, status="error", reason=reason)
        try:
            document = response.json()
            text = document["choices"][0]["message"]["content"] or ""
            usage = document.get("usage") or {}
        except (ValueError, LookupError, TypeError):
            return self._tagging(product_id, status="error", reason=f"not a chat completion: {response.text:.200}")
        self.usage.prompt_tokens += usage.get("prompt_tokens") or 0
        self.usage.output_tokens += usage.get("completion_tokens") or 0
        answer = parse_answer(text, self.vocabulary, self._chat_limits)
        if answer.reason is not None:
            return self._tagging(product_id, status="unparsed", reason=answer.reason)
        tags = tuple(ScoredTag.of(self.vocabulary[tag]) for tag in answer.tags)
        return self._tagging(product_id, tags=tags, reason=answer.repairs, violations=answer.violations)

    def _tagging(self, product_id: str, **fields: Any) -> Tagging:
        return Tagging(id=product_id, model=self.name, vocabulary=self.vocabulary.fingerprint, **fields)


def _object_of(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_about_schema(text: str) -> bool:
    return any(word in text.lower() for word in ("response_format", "json_schema", "schema", "guided", "grammar"))


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(2 * _LONGEST_WAIT_S, max(0.0, float(response.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0
