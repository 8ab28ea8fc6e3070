"""What hangtag answers for a product, and how an answer of a model becomes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from hangtag.errors import EngineError
from hangtag.product import Product
from hangtag.vocabulary import Tag, TagVocabulary

Stream = Callable[[Iterable[Product]], Iterator["Tagging"]]
"""Yields one tagging a product, in their order; takes products only as fast as it needs them."""

_BATCH = 256

Status = Literal["ok", "unparsed", "error"]


class ScoredTag(BaseModel):
    """A tag of a tagging; `confidence` is a probability in [0, 1], None where the tagger has none.

    `id` is the tag's own in its vocabulary; JSON leaves it out where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    facet: str = ""
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    id: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, tag: Tag, confidence: float | None = None) -> ScoredTag:
        """Return a vocabulary's tag with its confidence."""
        return cls(tag=tag.tag, facet=tag.facet, confidence=confidence, id=tag.id)


class Tagging(BaseModel):
    """The answer for one product.

    `status` is "ok", "unparsed" (the model's text was no answer, or lacked tags that its limits ask for) or
    "error" (the product or the engine failed); then `tags` is empty and `reason` says why. An "ok" tagging carries
    a reason only where an unconstrained answer had to be repaired; `violations` then counts what was left out, by
    kind ("unknown", "repeated", "over_limit"). `cut` says that the product's text was too long and
    the model read a part of it. `vocabulary` is the vocabulary's fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tags: tuple[ScoredTag, ...] = ()
    status: Status = "ok"
    reason: str | None = None
    violations: dict[str, int] = Field(default_factory=dict)
    cut: bool = False
    model: str
    vocabulary: str

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' strings in the order of the answer."""
        return tuple(tag.tag for tag in self.tags)

    def is_sure(self, at: float) -> bool:
        """Return whether it needs no review: it holds tags, and the least sure of them reaches `at`.

        A tag without a confidence counts as 0.
        """
        return self.status == "ok" and bool(self.tags) and all((tag.confidence or 0.0) >= at for tag in self.tags)

    def to_json(self) -> str:
        """Return compact JSON in one line; `reason`, `violations` and `cut` are left out where there are none."""
        left_out = {name for name in ("reason", "violations", "cut") if not getattr(self, name)}
        return self.model_dump_json(exclude=left_out)


@dataclass(slots=True)
class Usage:
    """Tokens that a language model read and wrote, summed over its answers, and products whose text was cut."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    num_cut: int = 0


class Tagger(Protocol):
    """Anything that tags products.

    `name` says which model answers; it is written into every tagging.
    """

    name: str
    vocabulary: TagVocabulary

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product, in the order of `products`; a bad product gives status "error"."""
        ...


def stream_of(tagger: Tagger) -> tuple[Stream, Usage]:
    """Return a tagger's stream over products of any number, and what it has used so far."""
    stream = getattr(tagger, "stream", None)
    return stream or in_batches(tagger), getattr(tagger, "usage", None) or Usage()


def in_batches(tagger: Tagger) -> Stream:
    """Return the stream of a tagger that takes whole batches."""

    def stream(products: Iterable[Product]) -> Iterator[Tagging]:
        iterator = iter(products)
        while batch := list(islice(iterator, _BATCH)):
            yield from tagger.tag(batch)

    return stream


def check_pair(product_id: str | None, tagging: Tagging | None) -> None:
    """Refuse a tagging that is not the next product's: paired by position only, it would mislabel all that follow.

    `product_id` None stands for no product that waits for its tagging, `tagging` None for a stream that ended.

    Raises:
        EngineError: they do not belong together.
    """
    answered = None if tagging is None else tagging.id
    if answered != product_id:
        got = "the end" if answered is None else f"a tagging of {answered!r}"
        expected = "the end" if product_id is None else f"that of {product_id!r}"
        raise EngineError(
            f"the engine answers out of order: got {got}, expected {expected}; "
            "what came before is safe, nothing is written for the rest: go on with another engine"
        )


def to_answer(tags: Sequence[str]) -> str:
    """Return the compact JSON answer that a model writes for `tags`, non-ASCII as is.

    Examples:
        >>> to_answer(["red", "shoes"])
        '{"tags":["red","shoes"]}'
    """
    return json.dumps({"tags": list(tags)}, ensure_ascii=False, separators=(",", ":"))
