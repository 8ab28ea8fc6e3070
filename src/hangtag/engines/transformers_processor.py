"""The constraint in transformers' `generate`: greedy, sampling and beams, in padded batches.

processor = TagLogitsProcessor(constraint, prompt_length=prompts.shape[1], end_token=eos, max_tokens=96)
out = model.generate(
    prompts, attention_mask=mask, logits_processor=LogitsProcessorList([processor]), max_new_tokens=97,
    renormalize_logits=True, return_dict_in_generate=True, output_scores=True,
)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor

from hangtag.constraint import Evidence, Limits, State, TagConstraint
from hangtag.engines.token_mask import keep_only
from hangtag.errors import ConstraintError

_History = tuple[int, ...]
_Row = tuple[int, _History]
_NO_LIMITS = Limits()


class TagLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Keeps every row of one call of `generate` to the constraint; make a new one for the next call.

    Beams are re-ordered between steps, so a row's state is found by what the row has generated; rows that have
    generated the same share it. A beam that left the constraint (`generate` fills up beams with tokens of
    probability 0 where fewer are allowed) may only end; its score stays -inf.
    """

    def __init__(
        self,
        constraint: TagConstraint,
        *,
        prompt_length: int,
        end_token: int,
        max_tokens: int | None = None,
        limits: Limits = _NO_LIMITS,
        prefix: Sequence[int] = (),
        evidence: Sequence[Evidence | None] | None = None,
    ) -> None:
        """Begin an answer in every row.

        `evidence` has one entry for each prompt; with beams, a prompt's rows stand together.

        `prompt_length` is the length of the padded prompts, which end with `prefix`. `max_tokens` counts the
        answer's tokens after `prefix`; after the answer comes `end_token`, one token more.

        Raises:
            ConstraintError: no legal answer fits, or `prefix` begins none.
        """
        self._constraint = constraint
        self._prompt_length = prompt_length
        self._end: NDArray[np.int32] = np.array([end_token], np.int32)
        start = constraint.start(max_tokens=max_tokens, limits=limits, prefix=prefix)
        starts = [start if scores is None else constraint.weighed(start, scores) for scores in evidence or [None]]
        # The states of the last step's rows, and of this one's; None for a row that left the constraint.
        self._before: dict[_Row, State | None] = {}
        self._states: dict[_Row, State | None] = {(n, ()): start for n, start in enumerate(starts)}
        self._num_prompts = len(starts)
        self._num_generated = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return new scores: as given where a token is allowed, -inf elsewhere.

        Shapes: `input_ids` (rows, tokens so far), `scores` (rows, vocabulary).
        """
        histories = [tuple(row) for row in input_ids[:, self._prompt_length :].tolist()]
        if len(histories[0]) != self._num_generated:
            self._num_generated += 1
            self._before, self._states = self._states, {}
        allowed: list[NDArray[np.int32]] = []
        biases: list[NDArray[np.float64] | None] = []
        rows_a_prompt = len(histories) // self._num_prompts
        for number, history in enumerate(histories):
            row = (number // rows_a_prompt, history)
            if row not in self._states:
                self._states[row] = self._follow(*row)
            state = self._states[row]
            if state is None or state.is_done:
                allowed.append(self._end)
                biases.append(None)
            else:
                allowed.append(self._constraint.allowed(state))
                biases.append(self._constraint.bias(state))
        kept = scores.clone()
        keep_only(kept, range(len(allowed)), allowed, biases)
        return kept

    def _follow(self, prompt: int, history: _History) -> State | None:
        before = self._before[prompt, history[:-1]]
        if before is None or before.is_done:
            return before
        state = self._constraint.fork(before)
        try:
            self._constraint.advance(state, history[-1])
        except ConstraintError:
            return None
        return state
