"""The set-correct constraint as a logits processor of vLLM.

vLLM loads `TagLogitsProcessor` through the entry-point group `vllm.logits_processors`, whichever model runner it
uses: one class implements both interfaces, that of the V1 runner and that of Model Runner V2. The latter has
been run on CPU tensors only, not yet on a GPU.

A request asks for the constraint by the keys of `hangtag.engines.vllm_arguments`; rows of other requests are not
touched. What is wrong with a request is refused when it is admitted. An answer that goes wrong after that (its
constraint's file has disappeared, say) is ended at once and logged: it is no whole answer, which a client sees,
and the engine and its other requests live on.

Speculative decoding: Model Runner V2 checks draft tokens against the constraint. The V1 runner loads no
processor at all then and says so to nobody; do not start it with a speculative model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV1
from vllm.v1.sample.logits_processor.interface import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV2

from hangtag.engines.token_mask import keep_only
from hangtag.engines.vllm_arguments import EVIDENCE, Opening, read_opening
from hangtag.errors import ConstraintError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
# What stands in V1's list of output tokens for one that is still on its way from the GPU.
_PLACEHOLDER = -1


class Row:
    """One request's answer: which of its tokens were taken in (`num_seen`), and what may follow.

    Never raises: an answer that goes wrong is ended by `end_token`.
    """

    def __init__(self, opening: Opening | None, end_token: int) -> None:
        """Begin an answer; `opening` None is one that has gone wrong already."""
        self._opening = opening
        self._end: NDArray[np.int32] = np.array([end_token], np.int32)
        self.restart()

    def restart(self) -> None:
        """Forget the tokens taken in."""
        self.num_seen = 0
        self._has_failed = self._opening is None
        if self._opening is not None:
            self._constraint = self._opening.constraint
            self._state = self._constraint.fork(self._opening.state)

    def advance(self, tokens: Iterable[int]) -> None:
        """Take tokens in; those after the end of the answer are passed over."""
        for token in tokens:
            self.num_seen += 1
            if self._has_failed or self._state.is_done:
                continue
            try:
                self._constraint.advance(self._state, token)
            except ConstraintError as error:
                self._fail(
                    "vLLM schedules asynchronously and withholds tokens from processors; start it with "
                    "--no-async-scheduling or VLLM_USE_V2_MODEL_RUNNER=1"
                    if token == _PLACEHOLDER
                    else str(error)
                )

    def fork(self) -> Row:
        """Return a row that goes its own way from here."""
        twin = copy(self)
        if self._opening is not None:
            twin._state = self._constraint.fork(self._state)
        return twin

    def is_allowed(self, token: int) -> bool:
        """Whether `token` may come next."""
        allowed = self.allowed(None)
        at = int(allowed.searchsorted(token))
        return at < len(allowed) and int(allowed[at]) == token

    def allowed(self, num_columns: int | None) -> NDArray[np.int32]:
        """Return the tokens that may come next, ascending; `num_columns` is the size of the model's vocabulary."""
        if self._has_failed or self._state.is_done:
            return self._end
        ids = self._constraint.allowed(self._state)
        if num_columns is not None and ids[-1] >= num_columns:
            self._fail(f"token {ids[-1]} is not among the model's {num_columns}: made for another tokenizer")
            return self._end
        return ids

    def bias(self) -> NDArray[np.float64] | None:
        """Return what is added to the logits of `allowed`, in its order."""
        return None if self._has_failed or self._state.is_done else self._constraint.bias(self._state)

    def _fail(self, reason: str) -> None:
        self._has_failed = True
        _log.error("hangtag: an answer is cut off after %d tokens: %s", self.num_seen, reason)


class TagLogitsProcessor(LogitsProcessorV1, LogitsProcessorV2):  # type: ignore[misc]
    """Keeps the answers of requests that ask for it to their constraint; see the module's docstring."""

    def __init__(self, vllm_config: Any, *where: Any) -> None:
        """Take what the runner gives: V1 (config, device, is_pin_memory), V2 (config, request states)."""
        self._max_model_len = int(vllm_config.model_config.max_model_len)
        self._rows: dict[int, tuple[Row, Sequence[int]]] = {}
        self._requests: Any = where[0] if len(where) == 1 else None
        self._slots: dict[int, Row] = {}
        if (
            self._requests is None
            and vllm_config.scheduler_config.async_scheduling
            and not vllm_config.model_config.logits_processors
        ):
            # vLLM repairs the placeholders only for processors named in its options, not for installed ones.
            _log.warning(
                "hangtag: with asynchronous scheduling the V1 model runner withholds tokens; start vLLM with "
                "--no-async-scheduling or VLLM_USE_V2_MODEL_RUNNER=1 before asking for hangtag's constraint"
            )

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Return if the request can be served; the server answers HTTP 400 otherwise.

        Raises:
            VLLMValidationError: what was got and expected.
        """
        try:
            read_opening(sampling_params)
        except ConstraintError as error:
            raise VLLMValidationError(str(error)) from None

    def is_argmax_invariant(self) -> bool:
        """Return False: the likeliest token may not be allowed, so greedy requests need this too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow requests that joined, left or moved (V1 runner).

        Tokens are read in `apply`: until then, those of the last step may be missing.
        """
        if batch_update is None:
            return
        rows = self._rows
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            row = self._new_row(params, prompt)
            if row is None:
                rows.pop(index, None)
            else:
                # vLLM appends to this very list; after a preemption it holds what was written before.
                rows[index] = (row, output)
        for source, target, direction in batch_update.moved:
            moved, replaced = rows.pop(source, None), rows.pop(target, None)
            if moved is not None:
                rows[target] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                rows[source] = replaced
        self._rows = dict(sorted(rows.items()))

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Begin the answer of the request in this slot (Model Runner V2); returns whether it has a constraint."""
        length = int(self._requests.prompt_len.np[req_idx])
        # Waits for the GPU if there is one: only where a list of evidence needs the prompt itself.
        prompt = (
            self._requests.all_token_ids.gpu[req_idx, :length].tolist()
            if isinstance((sampling_params.extra_args or {}).get(EVIDENCE), list)
            else range(length)
        )
        row = self._new_row(sampling_params, prompt)
        if row is None:
            self._slots.pop(req_idx, None)
        else:
            self._slots[req_idx] = row
        return row is not None

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Return `logits`, changed in place: -inf for every token that a row's constraint does not allow.

        Shape: (rows of the batch, vocabulary), float32. `ctx` is Model Runner V2's layout of the batch.
        """
        rows = self._read_rows() if ctx is None else self._read_slots(ctx)
        numbers, allowed, biases = [], [], []
        for number, row in rows:
            numbers.append(number)
            allowed.append(row.allowed(logits.shape[1]))
            biases.append(row.bias())
        keep_only(logits, numbers, allowed, biases)
        return logits

    def _read_rows(self) -> Iterator[tuple[int, Row]]:
        for number, (row, output) in self._rows.items():
            if len(output) < row.num_seen:
                row.restart()
            if len(output) > row.num_seen:
                row.advance(output[row.num_seen :])
            yield number, row

    def _read_slots(self, ctx: Any) -> Iterator[tuple[int, Row]]:
        """Yield the rows of logits that have a constraint, up to date. Waits for the GPU if there is one."""
        if not any(slot in self._slots for slot in ctx.idx_mapping_np.tolist()):
            return
        import torch

        layout = [ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos]
        rows = torch.stack([column.to(torch.int64) for column in layout], dim=1).tolist()
        draft: Row | None = None
        for number, (slot, draft_position, token, position) in enumerate(rows):
            row = self._slots.get(slot)
            if row is None:
                continue
            if draft_position:
                # After a draft token that is not allowed nothing is sampled.
                if draft is not None and draft.is_allowed(token):
                    draft = draft.fork()
                    draft.advance([token])
                    yield number, draft
                else:
                    draft = None
                continue
            draft = None
            if position + 1 < int(self._requests.prefill_len.np[slot]):
                # Part of a long prompt, or of what was written before a preemption: nothing is sampled.
                continue
            self._catch_up(row, slot, position + 1, token)
            draft = row
            yield number, row

    def _catch_up(self, row: Row, slot: int, length: int, last: int) -> None:
        """Take in the slot's tokens up to `length` (prompt included); `last` is the last of them."""
        num_prompt = int(self._requests.prompt_len.np[slot])
        if length - num_prompt < row.num_seen:
            row.restart()
        missing = length - num_prompt - row.num_seen
        if missing == 1:
            row.advance([last])
        elif missing:
            row.advance(self._requests.all_token_ids.gpu[slot, length - missing : length].tolist())

    def _new_row(self, params: Any, prompt: Sequence[int] | None) -> Row | None:
        stops: Iterable[int] = sorted(params.all_stop_token_ids)
        end = params.eos_token_id if params.eos_token_id is not None else next(iter(stops), 0)
        room = None if prompt is None else self._max_model_len - len(prompt)
        try:
            try:
                opening = read_opening(params, room=room, prompt=prompt)
            except ConstraintError:
                # Perhaps the prompt leaves no room for a whole answer: the engine will cut it and report that.
                opening = read_opening(params, prompt=prompt)
        except ConstraintError as error:
            _log.error("hangtag: an answer is ended before it began: %s", error)
            return Row(None, end)
        return None if opening is None else Row(opening, end)
