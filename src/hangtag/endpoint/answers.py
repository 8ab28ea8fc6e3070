"""vLLM's answers, token by token, as the JSON that clients receive.

The text is made from the tags that the tokens say, not from the tokens' own text: it is the whole compact answer
whatever was given as its prefix, and it comes tag by tag when streamed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hangtag.constraint import Evidence
from hangtag.endpoint.vocabularies import Ask
from hangtag.errors import ConstraintError

# What vLLM writes for a probability of zero, which JSON cannot say as a logarithm.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True)
class Token:
    """A token of an answer, its log-probability, and the likeliest ones in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form of chat completions."""
        return {**_entry(self.text, self.logprob), "top_logprobs": [_entry(*pair) for pair in self.top]}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode(errors="replace"))}


@dataclass
class Answer:
    """One answer as it grows. `ids` and `logprobs` are what vLLM wrote after the prefix, `name` calls the tags.
    `evidence` is what led it."""

    ask: Ask
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    has_failed: bool = False
    name: str = "tags"
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        constraint = self.ask.vocabulary.constraint
        self._constraint = constraint
        self._state = constraint.start(limits=self.ask.limits, prefix=self.ask.prefix)
        self._num_sent = 0
        self._is_open = False
        self._is_closed = False

    @property
    def is_whole(self) -> bool:
        """Whether the answer has ended as it should."""
        return self._state.is_done and not self.has_failed

    def add(self, ids: Sequence[int], logprobs: Sequence[float | None]) -> int:
        """Take tokens in; returns how many of them belong to the answer (the end of the text does not)."""
        taken = 0
        for token, logprob in zip(ids, logprobs, strict=False):
            if self._state.is_done or self.has_failed:
                break
            try:
                self._constraint.advance(self._state, token)
            except ConstraintError:
                self.has_failed = True
                break
            self.ids.append(token)
            self.logprobs.append(LEAST_LOGPROB if logprob is None else logprob)
            taken += 1
        return taken

    def new_text(self) -> str:
        """Return the JSON that was not returned before: whole tags, and the end once the answer is whole."""
        parts = []
        if not self._is_open:
            self._is_open = True
            parts.append("{" + json.dumps(self.name, ensure_ascii=False) + ":[")
        tags = self._state.tags
        for number in range(self._num_sent, len(tags)):
            name = self._constraint.names[tags[number]]
            parts.append(("," if number else "") + json.dumps(name, ensure_ascii=False))
        self._num_sent = len(tags)
        if self.is_whole and not self._is_closed:
            self._is_closed = True
            parts.append("]}")
        return "".join(parts)

    def prefix_tokens(self, num_top: int) -> list[Token]:
        """Return the tokens that the prompt ended with: they were certain."""
        texts = [self.ask.vocabulary.token_text(token) for token in self.ask.prefix]
        return [Token(text, 0.0, ((text, 0.0),) if num_top else ()) for text in texts]


def tokens_of(logprobs: Any, num_taken: int, num_top: int) -> list[Token]:
    """Return the first tokens in a completion's `logprobs`."""
    if not isinstance(logprobs, dict):
        return []
    tops = logprobs.get("top_logprobs") or [None] * num_taken
    columns = zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=False)
    return [
        Token(
            text,
            LEAST_LOGPROB if logprob is None else logprob,
            tuple(list((top or {}).items())[:num_top]),
        )
        for text, logprob, top in list(columns)[:num_taken]
    ]


def completion_logprobs(tokens: Sequence[Token], *, offset: int = 0) -> dict[str, Any]:
    """Return tokens in the form of text completions; `offset` is that of the first one, in characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "text_offset": offsets,
        "token_logprobs": [token.logprob for token in tokens],
        "tokens": [token.text for token in tokens],
        "top_logprobs": [dict(token.top) for token in tokens],
    }
