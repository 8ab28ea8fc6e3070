"""What hangtag answers for a product, and how an answer of a model becomes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

Status = Literal["ok", "unparsed", "error"]


class ScoredTag(BaseModel):
    """A tag of a tagging; `confidence` is a probability in [0, 1], None where the tagger has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: str
    facet: str = ""
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)


class Tagging(BaseModel):
    """The answer for one product.

    `status` is "ok", "unparsed" (the model's text was no answer) or "error" (the product or the engine
    failed); then `tags` is empty and `reason` says why. An "ok" tagging carries a reason only where an
    unconstrained answer had to be repaired; `violations` then counts what was left out, by kind ("unknown",
    "repeated", "over_limit"). `vocabulary` is the vocabulary's fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    tags: tuple[ScoredTag, ...] = ()
    status: Status = "ok"
    reason: str | None = None
    violations: dict[str, int] = Field(default_factory=dict)
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
        """Return compact JSON without line breaks; `reason` and `violations` are left out where there are none."""
        left_out = {name for name in ("reason", "violations") if not getattr(self, name)}
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


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A model's text read as an answer.

    `tags` are known and distinct, in the order written. `unknown` and `repeated` list what had to be left
    out. `reason` is None for text that is a JSON answer, else why it is none (then `tags` is empty).
    """

    tags: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    over_limit: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def is_correct_set(self) -> bool:
        """Whether the text was an answer with nothing to repair."""
        return self.reason is None and not (self.unknown or self.repeated or self.over_limit)

    @property
    def violations(self) -> dict[str, int]:
        """How many tags had to be left out, by kind; kinds without any are absent."""
        kinds = {"unknown": self.unknown, "repeated": self.repeated, "over_limit": self.over_limit}
        return {kind: len(tags) for kind, tags in kinds.items() if tags}

    @property
    def repairs(self) -> str | None:
        """One line that lists what was left out; None if nothing was."""
        left_out = [*self.unknown, *self.repeated, *self.over_limit]
        if not left_out:
            return None
        counts = ", ".join(f"{number} {kind}" for kind, number in self.violations.items())
        return f"repaired, left out {counts}: {', '.join(left_out)}"[:300]


def parse_answer(text: str, vocabulary: TagVocabulary) -> ParsedAnswer:
    """Return what `text` says, checked against the vocabulary and its facets' maxima. Never raises.

    White space around the JSON is accepted, anything else beside it is not. Matching of tags is exact.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(reason=f"not JSON ({error}): {text!r:.120}")
    if not isinstance(document, dict) or set(document) != {"tags"}:
        return ParsedAnswer(reason=f'expected {{"tags":[…]}}, got {text!r:.120}')
    written = document["tags"]
    if not isinstance(written, list) or not all(isinstance(tag, str) for tag in written):
        return ParsedAnswer(reason=f"`tags` is no list of strings: {text!r:.120}")
    tags: dict[str, None] = {}
    unknown, repeated, over_limit = [], [], []
    held: dict[str, int] = {}
    for tag in written:
        if tag not in vocabulary:
            unknown.append(tag)
            continue
        facet = vocabulary[tag].facet
        maximum = vocabulary.facets[facet].max
        if tag in tags:
            repeated.append(tag)
        elif maximum is not None and held.get(facet, 0) >= maximum:
            over_limit.append(tag)
        else:
            tags[tag] = None
            held[facet] = held.get(facet, 0) + 1
    return ParsedAnswer(tuple(tags), tuple(unknown), tuple(repeated), tuple(over_limit))


def to_answer(tags: Sequence[str]) -> str:
    """Return the compact JSON answer that a model writes for `tags`, non-ASCII as is.

    >>> to_answer(["red", "shoes"])
    '{"tags":["red","shoes"]}'
    """
    return json.dumps({"tags": list(tags)}, ensure_ascii=False, separators=(",", ":"))
