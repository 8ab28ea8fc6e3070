"""Tags products through any OpenAI-compatible server, under a JSON schema where the server takes one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hangtag.constraint import answer_schema
from hangtag.errors import EngineError, MissingExtra
from hangtag.loading import NearestLabelled, NearestVocabulary, default_limits
from hangtag.product import Product
from hangtag.prompt import Budget, ChatPrompt, Prompter
from hangtag.tagging import ScoredTag, Tagging, Usage, parse_answer
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    import httpx

NUM_ATTEMPTS = 6
_LONGEST_WAIT_S = 30.0
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


class HttpTagger:
    """Tags products with a model behind an OpenAI-compatible endpoint. See `Tagger`.

    Answers are checked here whatever the server promises: unknown and repeated tags are left out and counted.
    Tags carry no confidence. `usage` sums what the server reports. `takes_schema` turns False once the server
    has refused a JSON schema; later requests go without.
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
        constrained: bool = True,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        max_tokens: int = 256,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare requests to `url` (with its version, as in http://127.0.0.1:8000/v1).

        `shots` examples, the nearest of `examples`, stand in each prompt. `concurrency` is the number of requests
        at one time. `transport` and `sleep` replace the network and the clock.

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
        self.takes_schema = constrained
        self._httpx = httpx
        self._url = url.rstrip("/") + "/chat/completions"
        self._concurrency = concurrency
        self._max_tokens = max_tokens
        self._sleep = sleep
        self._schema = answer_schema(vocabulary, default_limits(vocabulary, examples))
        self._prompter = Prompter(
            vocabulary,
            CharacterTokens(),
            shots=shots,
            nearest_examples=NearestLabelled(examples) if shots else None,
            nearest_tags=NearestVocabulary(vocabulary),
            budget=_BUDGET,
        )
        self._client = httpx.Client(
            timeout=timeout_s,
            headers={"authorization": f"Bearer {key}"} if key else {},
            transport=transport,
            limits=httpx.Limits(max_connections=concurrency),
        )

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, in order; a product that the server refuses has status "error".

        Raises:
            EngineError: the endpoint cannot be reached, keeps failing, or knows neither key nor model.
        """
        prompts = self._prompter.prompts(products)
        self.usage.num_cut += sum(prompt.is_cut for prompt in prompts)
        with ThreadPoolExecutor(self._concurrency) as pool:
            answers = [pool.submit(self._ask, prompt) for prompt in prompts]
            try:
                return [
                    self._read(product.id, answer.result())
                    for product, answer in zip(products, answers, strict=True)
                ]
            except EngineError:
                for answer in answers:
                    answer.cancel()
                raise

    def _ask(self, prompt: ChatPrompt) -> httpx.Response:
        for attempt in range(NUM_ATTEMPTS):
            problem, wait = "", min(_LONGEST_WAIT_S, 0.5 * 2**attempt) * random.uniform(0.5, 1.5)
            with_schema = self.takes_schema
            try:
                response = self._client.post(self._url, json=self._request(prompt, with_schema))
            except self._httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if with_schema and response.status_code in (400, 422) and _is_about_schema(response.text):
                    self.takes_schema = False
                    response = self._client.post(self._url, json=self._request(prompt, False))
                if response.status_code in (401, 403, 404):
                    raise EngineError(
                        f"{self._url}: {response.status_code} for model {self.name!r} "
                        f"({response.text:.200}); check address, model and key"
                    )
                if response.status_code != 429 and response.status_code < 500:
                    return response
                problem = f"status {response.status_code}: {response.text:.200}"
                wait = max(wait, _retry_after(response))
            if attempt + 1 < NUM_ATTEMPTS:
                self._sleep(wait)
        raise EngineError(f"{self._url}: failed {NUM_ATTEMPTS} times ({problem}); is the endpoint running?")

    def _request(self, prompt: ChatPrompt, with_schema: bool) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.name,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        if with_schema:
            schema = {"name": "tagging", "schema": self._schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _read(self, product_id: str, response: httpx.Response) -> Tagging:
        fields: dict[str, Any] = {
            "id": product_id, "model": self.name, "vocabulary": self.vocabulary.fingerprint
        }  # fmt: skip
        if response.status_code >= 400:
            reason = f"the server refused the request: {response.status_code} {response.text:.200}"
            return Tagging(status="error", reason=reason, **fields)
        try:
            document = response.json()
            text = document["choices"][0]["message"]["content"] or ""
            usage = document.get("usage") or {}
        except (ValueError, LookupError, TypeError):
            return Tagging(status="error", reason=f"not a chat completion: {response.text:.200}", **fields)
        self.usage.prompt_tokens += usage.get("prompt_tokens") or 0
        self.usage.output_tokens += usage.get("completion_tokens") or 0
        answer = parse_answer(text, self.vocabulary)
        if answer.reason is not None:
            return Tagging(status="unparsed", reason=answer.reason, **fields)
        tags = tuple(ScoredTag(tag=tag, facet=self.vocabulary[tag].facet) for tag in answer.tags)
        return Tagging(tags=tags, reason=answer.repairs, violations=answer.violations, **fields)


def _is_about_schema(text: str) -> bool:
    return any(word in text.lower() for word in ("response_format", "json_schema", "schema", "guided", "grammar"))


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(_LONGEST_WAIT_S, float(response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
