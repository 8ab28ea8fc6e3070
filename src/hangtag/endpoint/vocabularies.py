"""The served vocabularies: from a product to the prompt that vLLM continues, and back to a tagging.

Prompts come from `GenerativeTagger.prompts`, which offline tagging uses too, so that both send the very same
tokens; product text that spells a control token stays text there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from hangtag.constraint import Evidence, Limits, TagConstraint
from hangtag.constraint.spelling import PieceTokenizer
from hangtag.endpoint.asgi import Refusal
from hangtag.endpoint.settings import EndpointSettings
from hangtag.engines.vllm_arguments import (
    EVIDENCE,
    KEY,
    PREFIX,
    evidence_argument,
    read_limits,
    to_arguments,
)
from hangtag.errors import ConstraintError, MissingExtra, RecipeError
from hangtag.language_model.generative import Generation, GenerativeTagger, Plan
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.product import Product
from hangtag.spec import TaggerSpec
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

MAX_ATTRIBUTES = 256
_ASKS_KEPT = 64


class PromptOnlyEngine:
    """Stands where a tagger wants its engine: it writes prompts, but generates nothing."""

    def __init__(self, name: str, tokenizer: Any, max_model_len: int) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len

    def stream(self, requests: Iterable[Any], plan: Plan) -> Iterator[tuple[int, Generation]]:
        """Raise: vLLM generates, in another process."""
        raise NotImplementedError("this engine only writes prompts")


class Begun(NamedTuple):
    """A product's prompt in tokens, up to where the answer begins, and what evidence leads the answer.

    `is_cut` says that text of the product was cut from the prompt.
    """

    ids: list[int]
    evidence: Evidence | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Ask:
    """What requests ask for beside products: a vocabulary, limits, and the first tokens of every such answer."""

    vocabulary: ServedVocabulary
    limits: Limits
    prefix: tuple[int, ...]
    max_tokens: int

    def body(self, prompts: Sequence[Begun], sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body for vLLM's `/v1/completions` whose answers keep to the limits.

        `prompts` come from `begin`, without the answer's prefix.
        """
        constraint = self.vocabulary.constraint
        budget = self.max_tokens - len(self.prefix)
        arguments: dict[str, Any] = to_arguments(self.vocabulary.name, self.limits, num_prefix=len(self.prefix))
        ids = [[*prompt.ids, *self.prefix] for prompt in prompts]
        evidence = [prompt.evidence for prompt in prompts if prompt.evidence is not None]
        if evidence:
            arguments[EVIDENCE] = evidence_argument(evidence, ids)
        body = {
            "prompt": ids,
            # One more for the end of the text, where the answer's last token does not stop generation.
            "max_tokens": budget if constraint.stop_token is not None else budget + 1,
            "temperature": 0.0,
            "logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
            "vllm_xargs": arguments,
            **sampling,
        }
        if constraint.stop_token is not None:
            body["stop_token_ids"] = [constraint.stop_token]
        return body


class ServedVocabulary:
    """One vocabulary and its tagger."""

    def __init__(self, name: str, tagger: GenerativeTagger, pieces: PieceTokenizer) -> None:
        """Serve `tagger` under `name`; `pieces` reads single tokens back."""
        assert tagger.plan.constraint is not None
        self.name = name
        self.tagger = tagger
        self.vocabulary: TagVocabulary = tagger.vocabulary
        self.constraint: TagConstraint = tagger.plan.constraint
        self.is_calibrated = tagger.is_calibrated
        self._pieces = pieces
        self._asks: dict[tuple[Any, ...], Ask] = {}

    def ask(self, arguments: Mapping[str, Any], max_tokens: int | None = None) -> Ask:
        """Return what a request with these `vllm_xargs` asks for; what it leaves out is as in the settings.

        Raises:
            Refusal: an argument is wrong, or no legal answer fits.
        """
        plan = self.tagger.plan
        given = to_arguments(self.name, plan.limits) | dict(arguments)
        tokens = plan.max_tokens if max_tokens is None else min(max_tokens, plan.max_tokens)
        try:
            limits = read_limits(given)
            key = (*limits.key, tokens)
            if key not in self._asks:
                prefix = self.constraint.forced(self.constraint.start(max_tokens=tokens, limits=limits))
                if len(self._asks) >= _ASKS_KEPT:
                    self._asks.pop(next(iter(self._asks)))
                self._asks[key] = Ask(self, limits, tuple(prefix), tokens)
            return self._asks[key]
        except ConstraintError as error:
            raise Refusal(400, "invalid", str(error), param="vllm_xargs") from None

    def begin(self, products: Sequence[Product]) -> list[Begun | str]:
        """Return how each product's request begins, or why it cannot."""
        num_prefix = len(self.tagger.plan.prefix)
        evidence = self.tagger.weigh(products)
        return [
            prompt if isinstance(prompt, str) else Begun(prompt[: len(prompt) - num_prefix], scores, is_cut)
            for (prompt, is_cut), scores in zip(self.tagger.prompts(products), evidence, strict=True)
        ]

    def token_text(self, token: int) -> str:
        """Return the text of one token; a part of a character becomes U+FFFD."""
        return self._pieces.decode([token])

    def read(
        self,
        product_id: str,
        ids: Sequence[int],
        logprobs: Sequence[float],
        ask: Ask,
        evidence: Evidence | None,
    ) -> Tagging:
        """Return the tagging that vLLM's tokens after the prefix say; see `GenerativeTagger.read`."""
        return self.tagger.read(product_id, Generation(ids, logprobs), prefix=ask.prefix, evidence=evidence)


class Vocabularies:
    """All vocabularies of a server. Prompts are written by one thread: tokenizers do not share well."""

    def __init__(self, served: Sequence[ServedVocabulary]) -> None:
        self.by_name = {vocabulary.name: vocabulary for vocabulary in served}
        self.default = served[0]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    @classmethod
    def load(cls, settings: EndpointSettings, specs: Sequence[TaggerSpec] | None = None) -> Vocabularies:
        """Return the vocabularies that `settings` names. Cost: seconds, a tokenizer and constraints are loaded.

        `specs` are their descriptions, where they have been read already.

        Raises:
            HangtagError: a file, a template or the limits are refused.
        """
        tokenizer = load_tokenizer(settings.tokenizer or settings.model)
        engine = PromptOnlyEngine(settings.names[-1], tokenizer, settings.max_model_len)
        pieces = HFPieceTokenizer(engine.tokenizer)
        served = []
        specs = specs or [entry.read() for entry in settings.vocabularies]
        for entry, spec in zip(settings.vocabularies, specs, strict=True):
            tagger = spec.load(engine)
            assert isinstance(tagger, GenerativeTagger)
            served.append(ServedVocabulary(entry.name, tagger, pieces))
        return cls(served)

    def choose(self, name: Any) -> ServedVocabulary:
        """Return the vocabulary of this name, the default for None. Raises Refusal: there is none."""
        if name is None:
            return self.default
        found = self.by_name.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self.by_name)
            raise Refusal(
                400, "invalid", f"vocabulary: got {name!r:.80}, expected one of {known}", param="vocabulary"
            )
        return found

    async def begin(self, vocabulary: ServedVocabulary, products: Sequence[Product]) -> list[Begun | str]:
        """Return `ServedVocabulary.begin` without holding up other requests; a few products at a time."""
        loop = asyncio.get_running_loop()
        prompts: list[Begun | str] = []
        for start in range(0, len(products), 16):
            batch = products[start : start + 16]
            prompts += await loop.run_in_executor(self._thread, vocabulary.begin, batch)
        return prompts

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of a model folder or hub id. Raises MissingExtra or RecipeError."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "cpu") from None
    try:
        return transformers.AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{model}: no tokenizer can be read ({str(error).splitlines()[0]:.200})") from None


def read_product(content: Any, position: int) -> Product:
    """Return the product that a request sends: an object with a product's fields, or text.

    Text that is a JSON object is read as one; other text is the title. `position` names a product without id.

    Raises:
        ValueError: it is no product.
    """
    if isinstance(content, str):
        content = object_in(content) or {"title": content}
    if not isinstance(content, dict):
        raise ValueError(f"got a JSON {type(content).__name__}, expected a product: an object or text")
    attributes = content.get("attributes")
    if isinstance(attributes, dict) and len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"it has {len(attributes)} attributes, expected at most {MAX_ATTRIBUTES}")
    product = Product.from_row(content, default_id=str(position))
    if len(product.attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"it has {len(product.attributes)} attributes, expected at most {MAX_ATTRIBUTES}")
    return product


def object_in(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def check_arguments(arguments: Any) -> dict[str, Any]:
    """Return a request's `vllm_xargs` without the vocabulary's name; the keys are those of `vllm_arguments`.

    Raises:
        Refusal: they are no object, or hold what is not for clients.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Refusal(400, "invalid", "vllm_xargs: expected an object", param="vllm_xargs")
    for name in (PREFIX, EVIDENCE):
        if name in arguments:
            raise Refusal(400, "invalid", f"{name} is set by the server; leave it out", param="vllm_xargs")
    for name in arguments:
        if not name.startswith(KEY):
            raise Refusal(400, "invalid", f"unknown argument {name!r:.80}", param="vllm_xargs")
    return {name: value for name, value in arguments.items() if name != KEY}
