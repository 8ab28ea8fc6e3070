"""The way from products to taggings through a language model, whatever the engine.

products -> messages (`prompt`) -> token ids -> engine, under the constraint -> tags with confidences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from hangtag.constraint import Evidence, Limits, TagConstraint
from hangtag.constraint.schema import answer_schema, parse_answer
from hangtag.errors import ConstraintError
from hangtag.language_model.calibration import Calibration
from hangtag.language_model.chat_tokens import ChatTokens
from hangtag.language_model.prompt import Prompter
from hangtag.product import Product
from hangtag.tagging import ScoredTag, Tagging, Usage
from hangtag.vocabulary import TagVocabulary

Decoding = Literal["set", "schema", "free"]
Weigh = Callable[[Sequence[Product]], Sequence[Evidence | None]]
"""From products to what is known of each one's tags beside the model; see `hangtag.evidence`."""
_PROMPT_BATCH = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """How every answer of a tagger is decoded.

    `decoding` "set" keeps to `constraint` under `limits`; "schema" hands `schema` (JSON Schema in a string) to
    the engine's own structured output; "free" does neither. `max_tokens` counts the tokens of a whole answer,
    its given prefix included, the end-of-text token not. `prefix` is that part of the answer that the prompt
    already ends with. `temperature` 0 is greedy; `exact_tokens` makes every answer that long, whatever the model
    wants.
    """

    decoding: Decoding
    limits: Limits
    max_tokens: int
    constraint: TagConstraint | None = None
    schema: str | None = None
    prefix: tuple[int, ...] = ()
    temperature: float = 0.0
    exact_tokens: int | None = None


class Request(NamedTuple):
    """One prompt in token ids, the caller's `key` for it, and what evidence leads its answer."""

    key: int
    prompt: Sequence[int]
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine wrote: token ids after the prompt, and the natural log of each one's processed
    probability. `error` is set where the engine refused the request."""

    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    error: str | None = None


class Engine(Protocol):
    """A language model that continues token ids."""

    name: str
    tokenizer: Any
    max_model_len: int

    def stream(self, requests: Iterable[Request], plan: Plan) -> Iterator[tuple[int, Generation]]:
        """Yield (key, generation) for each request as they finish, in any order.

        Requests are taken from the iterable only as fast as the engine has room for them.

        Raises:
            EngineError: the engine died.
        """
        ...


class GenerativeTagger:
    """Tags products with a language model, its `engine`. See `Tagger`; `usage` counts tokens over its life."""

    def __init__(
        self,
        engine: Engine,
        prompter: Prompter,
        *,
        constraint: TagConstraint,
        decoding: Decoding = "set",
        limits: Limits | None = None,
        max_tokens: int = 256,
        calibration: Calibration | None = None,
        evidence: Weigh | None = None,
    ) -> None:
        """Bind engine and prompt; `calibration` maps every confidence before it is returned, `evidence` leads
        answers under decoding "set".

        Raises:
            ConstraintError: no answer within `limits` fits in `max_tokens`.
        """
        self.name = engine.name
        self.vocabulary: TagVocabulary = prompter.vocabulary
        self.usage = Usage()
        self.engine = engine
        self._prompter = prompter
        self._chat = ChatTokens(engine.tokenizer)
        self._constraint = constraint
        self._calibration = calibration
        self._evidence = evidence if decoding == "set" else None
        limits = limits or Limits()
        start = constraint.start(max_tokens=max_tokens, limits=limits)
        self.plan = Plan(
            decoding=decoding,
            limits=limits,
            max_tokens=max_tokens,
            constraint=constraint if decoding == "set" else None,
            schema=engine_schema(self.vocabulary, limits) if decoding == "schema" else None,
            prefix=tuple(constraint.forced(start)) if decoding == "set" else (),
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether confidences are mapped to observed precision."""
        return self._calibration is not None

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, in order."""
        return list(self.stream(products))

    def stream(self, products: Iterable[Product]) -> Iterator[Tagging]:
        """Yield one tagging a product, in order, reading `products` as the engine has room.

        Raises:
            EngineError: the engine died.
        """
        open_: dict[int, tuple[str, Evidence | None]] = {}
        cut: set[int] = set()
        done: dict[int, Tagging] = {}

        def requests() -> Iterator[Request]:
            position = 0
            iterator = iter(products)
            while batch := list(islice(iterator, _PROMPT_BATCH)):
                for product, (prompt, is_cut), evidence in zip(
                    batch, self.prompts(batch), self.weigh(batch), strict=True
                ):
                    open_[position] = (product.id, evidence)
                    if is_cut:
                        cut.add(position)
                    if isinstance(prompt, str):
                        done[position] = self._tagging(product.id, status="error", reason=prompt)
                    else:
                        self.usage.prompt_tokens += len(prompt)
                        yield Request(position, prompt, evidence)
                    position += 1

        next_out = 0
        for position, generation in self.engine.stream(requests(), self.plan):
            product_id, evidence = open_[position]
            tagging = self.read(product_id, generation, evidence=evidence)
            done[position] = tagging.model_copy(update={"cut": True}) if position in cut else tagging
            cut.discard(position)
            while next_out in done:
                del open_[next_out]
                yield done.pop(next_out)
                next_out += 1
        while next_out in done:
            yield done.pop(next_out)
            next_out += 1

    def weigh(self, products: Sequence[Product]) -> Sequence[Evidence | None]:
        """Return the evidence that leads each product's answer, None where there is none."""
        return [None] * len(products) if self._evidence is None else self._evidence(products)

    def prompt_ids(self, products: Sequence[Product]) -> list[list[int] | str]:
        """Return each product's prompt in token ids, the answer's prefix included, or why it has none."""
        return [ids for ids, _ in self.prompts(products)]

    def prompts(self, products: Sequence[Product]) -> list[tuple[list[int] | str, bool]]:
        """Return the same with whether text of the product was cut from it."""
        room = self.engine.max_model_len - self.plan.max_tokens - 1
        chats = self._prompter.prompts(products)
        self.usage.num_cut += sum(chat.is_cut for chat in chats)
        prompts: list[tuple[list[int] | str, bool]] = []
        for product, chat, tokens in zip(products, chats, self._chat.encode(chats), strict=True):
            shots = self._prompter.shots
            while len(tokens) > room and shots:
                shots //= 2
                chat = self._prompter.prompts([product], shots=shots)[0]
                tokens = self._chat.encode([chat])[0]
            if len(tokens) > room:
                reason = f"the prompt has {len(tokens)} tokens, the model has room for {room} beside the answer"
                prompts.append((reason, chat.is_cut))
            else:
                prompts.append(([*tokens, *self.plan.prefix], chat.is_cut))
        return prompts

    def read(
        self,
        product_id: str,
        generation: Generation,
        *,
        prefix: Sequence[int] | None = None,
        evidence: Evidence | None = None,
    ) -> Tagging:
        """Return the tagging that a generation says.

        `prefix` is that part of the answer which its prompt ended with, where that is not the plan's. Where
        sharpened `evidence` led the answer, a tag's confidence is the pass's times the evidence's: the pass's
        alone would be next to one for nearly every tag.
        """
        if generation.error is not None:
            return self._tagging(product_id, status="error", reason=generation.error)
        ids = list(generation.token_ids)
        self.usage.output_tokens += len(ids)
        if self.plan.decoding == "set":
            try:
                prefix = self.plan.prefix if prefix is None else prefix
                scored = self._constraint.score(ids, list(generation.logprobs), prefix=prefix)
            except ConstraintError as error:
                return self._tagging(product_id, status="unparsed", reason=str(error))
            tags = tuple(
                ScoredTag.of(
                    self.vocabulary[tag],
                    confidence * (1.0 if evidence is None else evidence.probability(position)),
                )
                for tag, position, confidence in zip(
                    scored.tags, scored.positions, scored.confidences, strict=True
                )
            )
            tagging = self._tagging(product_id, tags=tags)
            return tagging if self._calibration is None else self._calibration.apply(tagging)
        text = self.engine.tokenizer.decode(ids, skip_special_tokens=True)
        answer = parse_answer(text, self.vocabulary, self.plan.limits)
        if answer.reason is not None:
            return self._tagging(product_id, status="unparsed", reason=answer.reason)
        tags = tuple(ScoredTag.of(self.vocabulary[tag]) for tag in answer.tags)
        return self._tagging(product_id, tags=tags, reason=answer.repairs, violations=answer.violations)

    def _tagging(self, product_id: str, **fields: Any) -> Tagging:
        return Tagging(id=product_id, model=self.name, vocabulary=self.vocabulary.fingerprint, **fields)


def engine_schema(vocabulary: TagVocabulary, limits: Limits) -> str:
    """Return the JSON schema of an answer as engines take it, without `uniqueItems`."""
    schema = answer_schema(vocabulary, limits)
    # xgrammar passes over it, llguidance refuses the request because of it: `parse_answer` counts repeats instead.
    del schema["properties"]["tags"]["uniqueItems"]
    return json.dumps(schema, ensure_ascii=False)
