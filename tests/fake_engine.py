"""An engine without a model, for unit tests: it writes legal answers at random, and finishes out of order."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hangtag.constraint import Evidence, TagConstraint
from hangtag.language_model.generative import Generation, Plan, Request


class ByteTokenizer:
    """One token a byte; speaks both the core's protocol and the few methods of a Hugging Face tokenizer that
    taggers use. The end-of-text token is 256."""

    fingerprint = "bytes"
    eos_token_id = 256
    chat_template = None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the UTF-8 bytes of each text."""
        return [list(text.encode()) for text in texts]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of bytes; broken sequences become U+FFFD."""
        return bytes(token for token in ids if token < 256).decode(errors="replace")

    def get_added_vocab(self) -> dict[str, int]:
        """Return the tokens beside the bytes."""
        return {"<|end|>": 256}

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Return `input_ids` of each text."""
        return {"input_ids": self.encode(texts)}


class FakeEngine:
    """Continues every prompt with an answer drawn from a seed: the same prompt gives the same answer.

    Set-decoded answers keep to the constraint; others are the text in `free_text`. Generations come in an order
    that differs from that of the prompts. A prompt that contains `refuse` is refused.
    """

    name = "fake"

    def __init__(
        self, *, max_model_len: int = 4096, free_text: str = '{"tags":[]}', refuse: str = "\0", in_flight: int = 5
    ) -> None:
        self.tokenizer = ByteTokenizer()
        self.max_model_len = max_model_len
        self._free_text = free_text
        self._refuse = refuse
        self._in_flight = in_flight

    def stream(self, requests: Iterable[Request], plan: Plan) -> Iterator[tuple[int, Generation]]:
        """Yield (key, generation); see `Engine`."""
        waiting: list[Request] = []
        for request in requests:
            waiting.append(request)
            if len(waiting) == self._in_flight:
                done = waiting.pop(random.Random(len(request.prompt)).randrange(len(waiting)))
                yield done.key, self._answer(done, plan)
        for request in reversed(waiting):
            yield request.key, self._answer(request, plan)

    def _answer(self, request: Request, plan: Plan) -> Generation:
        text = self.tokenizer.decode(request.prompt)
        if self._refuse in text:
            return Generation(error="refused")
        if plan.constraint is None:
            return Generation(token_ids=self.tokenizer.encode([self._free_text])[0])
        seed = hashlib.sha256(text.encode()).digest()
        return _walk(plan.constraint, plan, random.Random(seed), request.evidence)


def _walk(constraint: TagConstraint, plan: Plan, draw: random.Random, evidence: Evidence | None) -> Generation:
    state = constraint.start(
        max_tokens=plan.max_tokens - len(plan.prefix), limits=plan.limits, prefix=plan.prefix, evidence=evidence
    )
    tokens, logprobs = [], []
    while not state.is_done:
        allowed = constraint.allowed(state)
        bias = constraint.bias(state)
        shares = np.full(len(allowed), 1 / len(allowed)) if bias is None else np.exp(bias)
        (place,) = draw.choices(range(len(allowed)), shares)
        token = int(allowed[place])
        constraint.advance(state, token)
        tokens.append(token)
        logprobs.append(math.log(shares[place]))
    return Generation(token_ids=tokens, logprobs=logprobs)
