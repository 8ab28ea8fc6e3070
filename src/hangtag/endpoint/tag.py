"""`/v1/tag`: products in, taggings out, with a decision for each and an error where a product is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.endpoint.answers import Answer
from hangtag.endpoint.asgi import App, Gone, Refusal, Reply, Scope, call
from hangtag.endpoint.openai_answers import INNER, cut_off, read_reply
from hangtag.endpoint.settings import EndpointSettings
from hangtag.endpoint.vocabularies import Ask, Begun, Vocabularies, object_in, read_product
from hangtag.engines.vllm_arguments import FACETS, MAX_TAGS, MIN_TAGS, ONLY_FACETS, WITH_PARENTS, facet_arguments
from hangtag.product import Product, row_id
from hangtag.tagging import Tagging
from hangtag.vocabulary import FacetLimits

MAX_PRODUCTS = 256
Decision = Literal["accept", "review"]


class TagRequest(BaseModel):
    """Products to tag.

    A product is text, or an object with `id`, `title`, `description` and `attributes` (an object); one without
    `id` is called by its position. What is no product gets a tagging of status "error".
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    products: list[Any] = Field(
        max_length=MAX_PRODUCTS, description="Texts, or objects with a title or description."
    )
    vocabulary: str | None = Field(default=None, description="A vocabulary of the server; default: its first.")
    min_tags: int | None = Field(default=None, ge=0, description="Fewest tags of a product.")
    max_tags: int | None = Field(default=None, ge=0, description="Most tags of a product.")
    only_facets: list[str] | None = Field(default=None, description="Tags of other facets are not given.")
    facets: dict[str, FacetLimits] | None = Field(
        default=None, description="Limits by facet, in place of all of the vocabulary's own."
    )
    with_parents: bool | None = Field(default=None, description="A tag's parents come with it.")
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="A tagging is accepted if every tag's confidence reaches it."
    )


class DecidedTagging(Tagging):
    """A tagging and what to do with it.

    "accept": it has tags, and every confidence reaches the threshold; "review": anything else, errors too.
    """

    decision: Decision


class TagResponse(BaseModel):
    """One tagging a product, in the order of the products."""

    taggings: list[DecidedTagging]
    threshold: float
    is_calibrated: bool = Field(description="Whether confidences are calibrated on held-out products.")

    def to_json(self) -> str:
        """Return compact JSON; a tagging's `reason` and `cut` are left out where there is none."""
        # Clients of 0.1.0 refuse a key that they do not know.
        left_out: dict[Any, Any] = {n: {"cut": True} for n, tagging in enumerate(self.taggings) if not tagging.cut}
        left_out["__all__"] = {"violations": True}
        return self.model_dump_json(exclude_none=True, exclude={"taggings": left_out})


class TagRoute:
    """Answers the route through the app behind."""

    def __init__(
        self,
        vocabularies: Vocabularies,
        settings: EndpointSettings,
        finished: Callable[[str, Product | None, Tagging], None],
    ) -> None:
        """`finished` is told each tagging with its vocabulary's name and its product."""
        self._vocabularies = vocabularies
        self._settings = settings
        self._finished = finished

    def read(self, body: dict[str, Any]) -> TagRequest:
        """Return the request. Raises Refusal: it is none."""
        try:
            return TagRequest.model_validate(body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"]))[:80]
            raise Refusal(400, "invalid", f"{where}: {problem['msg']:.200}", param=where) from None

    async def answer(self, request: TagRequest, app: App, scope: Scope, gone: Gone) -> TagResponse:
        """Return the taggings.

        Raises:
            Refusal: an option is wrong, or the engine failed.
        """
        vocabulary = self._vocabularies.choose(request.vocabulary)
        facets = None if request.facets is None else facet_arguments(request.facets)
        with_parents = None if request.with_parents is None else int(request.with_parents)
        given = {
            MIN_TAGS: request.min_tags, MAX_TAGS: request.max_tags, ONLY_FACETS: request.only_facets,
            FACETS: facets, WITH_PARENTS: with_parents,
        }  # fmt: skip
        ask = vocabulary.ask({name: value for name, value in given.items() if value is not None})
        threshold = self._settings.threshold if request.threshold is None else request.threshold
        taggings: list[Tagging | None] = [None] * len(request.products)
        products: dict[int, Product] = {}
        for number, content in enumerate(request.products):
            try:
                products[number] = read_product(content, number)
            except ValueError as error:
                taggings[number] = self._error(ask, _id_of(content, number), str(error))
        prompts = await self._vocabularies.begin(vocabulary, list(products.values()))
        places = asyncio.Semaphore(self._settings.max_parallel)

        async def one(number: int, product: Product, prompt: Begun | str) -> None:
            if isinstance(prompt, str):
                taggings[number] = self._error(ask, product.id, prompt)
                return
            async with places:
                tagging = await self._generate(ask, product, prompt, app, scope, gone)
            taggings[number] = tagging.model_copy(update={"cut": True}) if prompt.is_cut else tagging

        try:
            async with asyncio.TaskGroup() as group:
                for (number, product), prompt in zip(products.items(), prompts, strict=True):
                    group.create_task(one(number, product, prompt))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        decided = []
        for number, tagging in enumerate(taggings):
            assert tagging is not None
            self._finished(vocabulary.name, products.get(number), tagging)
            decision: Decision = "accept" if tagging.is_sure(threshold) else "review"
            decided.append(DecidedTagging(**dict(tagging), decision=decision))
        return TagResponse(taggings=decided, threshold=threshold, is_calibrated=vocabulary.is_calibrated)

    async def _generate(
        self, ask: Ask, product: Product, prompt: Begun, app: App, scope: Scope, gone: Gone
    ) -> Tagging:
        reply = Reply()
        body = ask.body([prompt], {}) | {"model": self._settings.names[0]}
        await call(app, scope, INNER, body, gone, reply)
        try:
            choice = read_reply(reply)["choices"][0]
            answer = Answer(ask)
            answer.add(choice.get("token_ids") or [], (choice.get("logprobs") or {}).get("token_logprobs") or [])
            if not answer.is_whole:
                raise cut_off()
        except Refusal as refusal:
            if refusal.status >= 500 and refusal.reason == "engine":
                raise
            return self._error(ask, product.id, str(refusal))
        return ask.vocabulary.read(product.id, answer.ids, answer.logprobs, ask, prompt.evidence)

    def _error(self, ask: Ask, product_id: str, reason: str) -> Tagging:
        fingerprint = ask.vocabulary.vocabulary.fingerprint
        return Tagging(
            id=product_id,
            status="error",
            reason=reason[:500],
            model=self._settings.names[-1],
            vocabulary=fingerprint,
        )


def _id_of(content: Any, position: int) -> str:
    if isinstance(content, str):
        content = object_in(content)
    return row_id(content if isinstance(content, dict) else {}, default_id=str(position))
