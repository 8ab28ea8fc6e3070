"""The plug-in against vLLM's own interface classes; with `model`, inside the engine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_tokenizers import ByteTokenizer

from hangtag import Tag, TagVocabulary
from hangtag.constraint import Evidence, Limits, TagConstraint
from hangtag.engines.vllm_arguments import EVIDENCE, KEYS, read_opening, to_arguments
from hangtag.errors import ConstraintError
from hangtag.vocabulary import FacetLimits

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vllm is not installed (pip install 'hangtag[cpu]')")

from vllm import SamplingParams  # noqa: E402
from vllm.exceptions import VLLMValidationError  # noqa: E402
from vllm.v1.sample.logits_processor import BatchUpdateBuilder, LogitsProcessors  # noqa: E402
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality  # noqa: E402
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState  # noqa: E402
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2  # noqa: E402

from hangtag.engines.vllm_plugin import Row, TagLogitsProcessor  # noqa: E402

NUM_COLUMNS, END, MAX_MODEL_LEN, PROMPT = 300, 0, 400, [7, 8, 9]
WORDS = ("red", "navy", "navy blue", "blue", "b", "trail shoe", "shoe", 'wide 12"', "靴", "wool", "wool mix")


@pytest.fixture(scope="module")
def constraint(tmp_path_factory: pytest.TempPathFactory) -> TagConstraint:
    vocabulary = TagVocabulary(
        [Tag(word, "colour" if number < 5 else "kind") for number, word in enumerate(WORDS)],
        facets={"colour": FacetLimits(max=2)},
    )
    return TagConstraint.compile(vocabulary, ByteTokenizer(), cache=tmp_path_factory.mktemp("constraints"))


def sampling_params(max_tokens: int | None = 120, **options: Any) -> SamplingParams:
    """Return parameters as the worker sees them: with the model's end-of-text token filled in."""
    params = SamplingParams(max_tokens=max_tokens, **options)
    params.update_from_generation_config({}, END)
    return params


def config(*, async_scheduling: bool = False, max_model_len: int = MAX_MODEL_LEN) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=max_model_len, logits_processors=None),
        scheduler_config=SimpleNamespace(async_scheduling=async_scheduling),
    )


def v1_processor(**options: Any) -> TagLogitsProcessor:
    return TagLogitsProcessor(config(**options), torch.device("cpu"), False)


def logits_of(request: int, num_tokens: int) -> Any:
    """Return the logits that request would get after that many tokens, whatever the batch."""
    generator = torch.Generator().manual_seed(request * 1000 + num_tokens)
    return torch.randn(NUM_COLUMNS, generator=generator)


def alone(constraint: TagConstraint, request: int, params: SamplingParams) -> list[int]:
    """Return the greedy answer of a request that is alone, by the constraint itself."""
    opening = read_opening(params)
    state = constraint.fork(opening.state)
    ids: list[int] = []
    while not state.is_done:
        allowed = constraint.allowed(state)
        logits = logits_of(request, len(ids))[allowed.tolist()]
        bias = constraint.bias(state)
        if bias is not None:
            logits += torch.from_numpy(bias).float()
        ids.append(int(allowed[int(logits.argmax())]))
        constraint.advance(state, ids[-1])
    return [*ids, END]


class Request:
    """A request in flight; every third has no constraint, the others have limits and, half of them, evidence of
    their own."""

    def __init__(self, number: int, constraint: TagConstraint) -> None:
        self.number = number
        limits = Limits(min_tags=number % 3, max_tags=3 + number % 4)
        arguments = to_arguments(constraint, limits, num_prefix=2 if number % 5 == 1 else 0)
        if number % 2:
            scores = np.random.default_rng(number).normal(0, 3, len(WORDS) + 1)
            arguments[EVIDENCE] = Evidence(scores[:-1], scores[-1]).to_text()
        self.is_constrained = number % 3 != 0
        self.params = sampling_params(60 + number, extra_args=arguments if self.is_constrained else None)
        self.prompt = PROMPT * (1 + number % 2)
        self.output: list[int] = []
        # Tokens that the engine has; `output` may hold placeholders for the last of them.
        self.written: list[int] = []

    @property
    def is_finished(self) -> bool:
        return len(self.written) >= (self.params.max_tokens or 0) or END in self.written

    def check(self, constraint: TagConstraint) -> None:
        if self.is_constrained:
            assert self.written == alone(constraint, self.number, self.params)


class TestV1:
    @pytest.mark.parametrize("seed", range(8))
    def test_a_scrambled_batch_gives_what_each_request_gives_alone(
        self, constraint: TagConstraint, seed: int
    ) -> None:
        rng = random.Random(seed)
        numbers = count(seed * 100)
        processor = v1_processor()
        builder = BatchUpdateBuilder()
        batch: list[Request] = []
        preempted: list[Request] = []
        finished: list[Request] = []
        for step in range(250):
            gone = [row for row, request in enumerate(batch) if request.is_finished or rng.random() < 0.04]
            for row in gone:
                (finished if batch[row].is_finished else preempted).append(batch[row])
                builder.removed_append(row)
            places: list[Request | None] = [None if row in gone else r for row, r in enumerate(batch)]
            joining = [Request(next(numbers), constraint) for _ in range(rng.randrange(3)) if step < 150]
            while preempted and rng.random() < 0.5:
                joining.append(preempted.pop(rng.randrange(len(preempted))))
                joining[-1].output = list(joining[-1].written)
            for request in joining[: 12 - len(batch) + len(gone)]:
                row = builder.pop_removed() if builder.has_removed() else len(places)
                if row == len(places):
                    places.append(None)
                places[row] = request
                builder.added.append((row, request.params, request.prompt, request.output))
            for request in joining[12 - len(batch) + len(gone) :]:
                preempted.append(request)
            while None in places:
                hole = places.index(None)
                last = max((row for row, r in enumerate(places) if r is not None), default=-1)
                if last > hole:
                    places[hole], places[last] = places[last], None
                    builder.moved.append((last, hole, MoveDirectionality.UNIDIRECTIONAL))
                else:
                    del places[hole:]
            batch = [request for request in places if request is not None]
            if len(batch) > 1 and rng.random() < 0.4:
                one, other = rng.sample(range(len(batch)), 2)
                batch[one], batch[other] = batch[other], batch[one]
                builder.moved.append((one, other, MoveDirectionality.SWAP))
            processor.update_state(builder.get_and_reset(len(batch)))
            for request in batch:
                request.output[:] = request.written  # the last placeholder is repaired after `update_state`
            if not batch:
                continue
            logits = torch.stack([logits_of(r.number, len(r.written)) for r in batch])
            before = logits.clone()
            processed = processor.apply(logits)
            assert processed is logits
            for row, request in enumerate(batch):
                if not request.is_constrained:
                    assert torch.equal(processed[row], before[row])
                if rng.random() < 0.15:
                    continue  # a chunk of a long prompt: what is sampled is thrown away
                request.written.append(int(processed[row].argmax()))
                request.output.append(-1)
        assert len(finished) > 10
        for request in finished:
            request.check(constraint)

    def test_replacement_without_removal_and_order_of_operations(self, constraint: TagConstraint) -> None:
        processor = v1_processor()
        params = sampling_params(extra_args=to_arguments(constraint, Limits(min_tags=1)))
        plain = sampling_params()
        processor.update_state(BatchUpdate(2, [], [(0, params, PROMPT, []), (1, plain, PROMPT, [])], []))
        assert banned_rows(processor, 2) == [True, False]
        # Removed comes before added before moved.
        processor.update_state(BatchUpdate(2, [0], [(0, plain, PROMPT, []), (1, params, PROMPT, [])], []))
        assert banned_rows(processor, 2) == [False, True]
        processor.update_state(BatchUpdate(1, [0], [], [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]))
        assert banned_rows(processor, 1) == [True]
        processor.update_state(None)
        processor.update_state(BatchUpdate(1, [], [(0, plain, PROMPT, [])], []))
        assert banned_rows(processor, 1) == [False]

    def test_tokens_that_the_engine_takes_back_are_forgotten(self, constraint: TagConstraint) -> None:
        processor = v1_processor()
        params = sampling_params(extra_args=to_arguments(constraint))
        answer = constraint.encode(["red"])
        output = answer[:15]
        processor.update_state(BatchUpdate(1, [], [(0, params, PROMPT, output)], []))
        processor.apply(torch.zeros(1, NUM_COLUMNS))
        del output[9:]
        assert allowed_columns(processor) == [ord('"'), ord("]")]
        output.extend(answer[9:])
        assert allowed_columns(processor) == [END]

    def test_withheld_tokens_end_the_answer_and_are_logged(
        self, constraint: TagConstraint, caplog: pytest.LogCaptureFixture
    ) -> None:
        processor = v1_processor(async_scheduling=True)
        assert "--no-async-scheduling" in caplog.text
        params = sampling_params(extra_args=to_arguments(constraint))
        processor.update_state(BatchUpdate(1, [], [(0, params, PROMPT, [-1])], []))
        caplog.clear()
        assert allowed_columns(processor) == [END]
        assert "--no-async-scheduling" in caplog.text

    def test_what_goes_wrong_after_admission_ends_the_answer_only(
        self, constraint: TagConstraint, caplog: pytest.LogCaptureFixture
    ) -> None:
        processor = v1_processor()
        lost = sampling_params(extra_args={"hangtag": "/nowhere/lost.constraint"})
        processor.update_state(BatchUpdate(1, [], [(0, lost, PROMPT, [])], []))
        assert allowed_columns(processor) == [END]
        assert "lost" in caplog.text
        params = sampling_params(extra_args=to_arguments(constraint))
        processor.update_state(BatchUpdate(1, [0], [(0, params, PROMPT, [5])], []))
        assert allowed_columns(processor) == [END]
        assert "token 5 is not allowed" in caplog.text

    def test_a_constraint_of_another_tokenizer_does_not_reach_beyond_the_columns(
        self, constraint: TagConstraint, caplog: pytest.LogCaptureFixture
    ) -> None:
        processor = v1_processor()
        params = sampling_params(extra_args=to_arguments(constraint))
        processor.update_state(BatchUpdate(1, [], [(0, params, PROMPT, [])], []))
        logits = processor.apply(torch.zeros(1, 64))
        assert torch.isfinite(logits[0]).nonzero().flatten().tolist() == [END]
        assert "another tokenizer" in caplog.text

    def test_the_model_s_length_counts_like_max_tokens(self, constraint: TagConstraint) -> None:
        answer = constraint.encode(["b", "red"])
        for room, may_go_on in ((len(answer) + 1, True), (len(answer), False)):
            processor = v1_processor(max_model_len=len(PROMPT) + room)
            params = sampling_params(200, extra_args=to_arguments(constraint))
            output = answer[: answer.index(ord(","))]
            processor.update_state(BatchUpdate(1, [], [(0, params, PROMPT, output)], []))
            assert (ord(",") in allowed_columns(processor)) is may_go_on

    def test_it_is_applied_to_greedy_requests(self) -> None:
        groups = LogitsProcessors([v1_processor()])
        assert len(groups.non_argmax_invariant) == 1


def allowed_columns(processor: TagLogitsProcessor) -> list[int]:
    logits = processor.apply(torch.randn(1, NUM_COLUMNS))
    return torch.isfinite(logits[0]).nonzero().flatten().tolist()


def banned_rows(processor: TagLogitsProcessor, num_rows: int) -> list[bool]:
    return torch.isinf(processor.apply(torch.zeros(num_rows, NUM_COLUMNS))).any(dim=1).tolist()


def buffer(*shape: int) -> Any:
    """Return what stands for vLLM's own buffers, which need pinned memory: `gpu` and `np` over one array."""
    tensor = torch.zeros(shape, dtype=torch.int32)
    return SimpleNamespace(gpu=tensor, np=tensor.numpy())


class Runner:
    """As much of Model Runner V2 as a processor sees: slots, committed tokens, rows in any order."""

    def __init__(self, num_slots: int) -> None:
        device = torch.device("cpu")
        self.state = LogitsProcRequestState(
            device=device,
            max_num_reqs=num_slots,
            vocab_size=NUM_COLUMNS,
            all_token_ids=buffer(num_slots, MAX_MODEL_LEN),
            prompt_len=buffer(num_slots),
            prefill_len=buffer(num_slots),
            total_len=buffer(num_slots),
        )
        self.processor = TagLogitsProcessor(config(), self.state)
        self.free = list(range(num_slots))
        self.slots: dict[int, Request] = {}

    def add(self, request: Request) -> int:
        slot = self.free.pop()
        self.slots[slot] = request
        self.state.prompt_len.np[slot] = len(request.prompt)
        self.state.prefill_len.np[slot] = len(request.prompt) + len(request.written)
        self.commit(slot)
        assert self.processor.add_request(slot, request.params) is request.is_constrained
        self.processor.apply_staged_writes()
        return slot

    def commit(self, slot: int) -> None:
        tokens = self.slots[slot].prompt + self.slots[slot].written
        self.state.all_token_ids.gpu[slot] = -7
        self.state.all_token_ids.gpu[slot, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)

    def remove(self, slot: int) -> Request:
        self.free.append(slot)
        return self.slots.pop(slot)

    def apply(self, logits: Any, rows: list[tuple[int, int, int, int]]) -> Any:
        """Process rows of (slot, draft position, token, position)."""
        slot, draft, token, position = (list(column) for column in zip(*rows, strict=True))
        slots = list(dict.fromkeys(slot))
        context = LogitsContext(
            expanded_idx_mapping=torch.tensor(slot, dtype=torch.int32),
            idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping_np=np.array(slots, np.int32),
            expanded_local_pos=torch.tensor(draft, dtype=torch.int32),
            input_ids=torch.tensor(token, dtype=torch.int32),
            pos=torch.tensor(position, dtype=torch.int64),
            seq_lens_upper_bound_np=np.array(position, np.int32) + 1,
        )
        return self.processor.apply(logits, context)


def other_token(constraint: TagConstraint, request: Request, written: list[int], rng: random.Random) -> int:
    """Return a draft token that need not be chosen next: one that is allowed, or one that no answer holds."""
    if request.is_constrained and END not in written:
        row = Row(read_opening(request.params), END)
        row.advance(written)
        return rng.choice([*row.allowed(NUM_COLUMNS).tolist(), 2])
    return 2


class TestV2:
    def test_the_class_is_one_that_both_loaders_take(self) -> None:
        from vllm.v1.sample.logits_processor import _load_logitsprocs_by_fqcns
        from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_by_fqcns

        assert issubclass(TagLogitsProcessor, LogitsProcessorV2)
        name = "hangtag.engines.vllm_plugin:TagLogitsProcessor"
        assert _load_logitsprocs_by_fqcns([name]) == [TagLogitsProcessor]
        assert _load_v2_logitsprocs_by_fqcns([name]) == [TagLogitsProcessor]

    @pytest.mark.parametrize("seed", range(8))
    def test_a_scrambled_batch_gives_what_each_request_gives_alone(
        self, constraint: TagConstraint, seed: int
    ) -> None:
        rng = random.Random(seed)
        numbers = count(seed * 100)
        runner = Runner(10)
        preempted: list[Request] = []
        finished: list[Request] = []
        for step in range(250):
            for slot in list(runner.slots):
                if runner.slots[slot].is_finished:
                    finished.append(runner.remove(slot))
                elif rng.random() < 0.04:
                    preempted.append(runner.remove(slot))
            while runner.free and rng.random() < 0.5 and (preempted or step < 150):
                runner.add(preempted.pop() if preempted else Request(next(numbers), constraint))
            order = rng.sample(list(runner.slots), rng.randint(0, len(runner.slots)))
            if not order:
                continue
            rows, kept = [], []
            for slot in order:
                request = runner.slots[slot]
                length = len(request.prompt) + len(request.written)
                prefill = int(runner.state.prefill_len.np[slot])
                if length == prefill and rng.random() < 0.2:
                    length = rng.randint(1, prefill)  # a chunk, perhaps the last one
                kept.append(length >= prefill)
                rows.append((slot, 0, (request.prompt + request.written)[length - 1], length - 1))
            logits = torch.stack([logits_of(runner.slots[s].number, len(runner.slots[s].written)) for s in order])
            before = logits.clone()
            processed = runner.apply(logits, rows)
            for row, slot in enumerate(order):
                if not runner.slots[slot].is_constrained:
                    assert torch.equal(processed[row], before[row])
                if not kept[row]:
                    assert torch.equal(processed[row], before[row])
                else:
                    runner.slots[slot].written.append(int(processed[row].argmax()))
                    runner.commit(slot)
        assert len(finished) > 10
        for request in finished:
            request.check(constraint)

    @pytest.mark.parametrize("seed", range(4))
    def test_draft_tokens_are_checked_one_after_another(
        self, constraint: TagConstraint, seed: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        rng = random.Random(seed)
        runner = Runner(4)
        for number in range(1, 9):
            request = Request(number, constraint)
            slot = runner.add(request)
            while not request.is_finished:
                whole = alone(constraint, number, request.params) if request.is_constrained else [1] * 200
                at = len(request.written)
                drafts = whole[at : at + rng.randint(0, 4)]
                if drafts and rng.random() < 0.6:
                    wrong = rng.randrange(len(drafts))
                    drafts[wrong] = other_token(constraint, request, whole[: at + wrong], rng)
                fed = [(request.prompt + request.written)[-1], *drafts]
                start = len(request.prompt) + at - 1
                logits = torch.stack([logits_of(number, at + n) for n in range(len(fed))])
                before = logits.clone()
                rows = [(slot, n, token, start + n) for n, token in enumerate(fed)]
                processed = runner.apply(logits, rows)
                if not request.is_constrained:
                    assert torch.equal(processed, before)
                for row, draft in enumerate([*drafts, None]):
                    request.written.append(int(processed[row].argmax()))
                    if request.is_finished or request.written[-1] != draft:
                        break
                runner.commit(slot)
            runner.remove(slot)
            request.check(constraint)
        assert not caplog.records


class TestAdmission:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"hangtag_mintags": 1}, "did you mean hangtag_min_tags"),
            ({"hangtag_zzz": 1}, "unknown argument"),
            ({"hangtag_min_tags": -1}, "whole number"),
            ({"hangtag_min_tags": True}, "whole number"),
            ({"hangtag_min_tags": "2"}, "whole number"),
            ({"hangtag_max_tags": 1.0}, "whole number"),
            ({"hangtag_min_tags": 3, "hangtag_max_tags": 2}, "max_tags"),
            ({"hangtag_min_tags": 20}, "admit only"),
            ({"hangtag_only_facets": "colour"}, "list of facets"),
            ({"hangtag_only_facets": ["size"]}, "size"),
            ({"hangtag_facets": "colour"}, "JSON text"),
            ({"hangtag_facets": '{"size": {"max": 1}}'}, "size"),
            ({"hangtag_with_parents": "yes"}, "0 or 1"),
            ({"hangtag_prefix": 10}, "first 9 tokens"),
            ({"hangtag_evidence": 7}, "base64 of float32"),
            ({"hangtag_evidence": []}, "none of them for this prompt"),
            ({"hangtag_evidence": Evidence([0.5]).to_text()}, "got 2 scores"),
            ({"hangtag": 3}, "a digest, a path or a registered name"),
            ({"hangtag": "missing.constraint"}, "no constraint 'missing'"),
            ({"hangtag": "0" * 64}, "no constraint"),
            ({"hangtag": {1, 2}}, "plain JSON"),
        ],
    )
    def test_wrong_arguments_are_refused(
        self, constraint: TagConstraint, arguments: dict[str, Any], message: str
    ) -> None:
        params = SamplingParams(max_tokens=100, extra_args={"hangtag": str(constraint.path)} | arguments)
        with pytest.raises(VLLMValidationError, match=message):
            TagLogitsProcessor.validate_params(params)

    @pytest.mark.parametrize(
        "options",
        [
            {"allowed_token_ids": [1]},
            {"bad_words": ["red"]},
            {"ignore_eos": True},
            {"min_tokens": 2},
            {"thinking_token_budget": 4},
        ],
    )
    def test_parameters_that_contradict_the_constraint_are_refused(
        self, constraint: TagConstraint, options: dict[str, Any]
    ) -> None:
        params = SamplingParams(max_tokens=100, extra_args=to_arguments(constraint), **options)
        with pytest.raises(VLLMValidationError, match=next(iter(options))):
            TagLogitsProcessor.validate_params(params)

    def test_limits_without_a_constraint_are_refused(self) -> None:
        with pytest.raises(VLLMValidationError, match="no constraint is named"):
            TagLogitsProcessor.validate_params(SamplingParams(extra_args={"hangtag_min_tags": 1}))

    def test_other_requests_and_unset_max_tokens_are_admitted(self, constraint: TagConstraint) -> None:
        for extra_args in (None, {}, {"session": "a"}):
            TagLogitsProcessor.validate_params(SamplingParams(extra_args=extra_args))
        TagLogitsProcessor.validate_params(SamplingParams(max_tokens=None, extra_args=to_arguments(constraint)))

    def test_max_tokens_keeps_one_step_for_the_end_token_unless_the_request_stops_at_the_close(
        self, constraint: TagConstraint
    ) -> None:
        arguments = to_arguments(constraint, Limits(min_tags=1))
        shortest = len(constraint.encode(["b"]))
        TagLogitsProcessor.validate_params(SamplingParams(max_tokens=shortest + 1, extra_args=arguments))
        with pytest.raises(VLLMValidationError, match="no legal answer"):
            TagLogitsProcessor.validate_params(SamplingParams(max_tokens=shortest, extra_args=arguments))
        if constraint.stop_token is not None:
            stopping = SamplingParams(
                max_tokens=shortest, stop_token_ids=[constraint.stop_token], extra_args=arguments
            )
            TagLogitsProcessor.validate_params(stopping)

    def test_a_registered_name_is_known_and_paths_are_closed(
        self, constraint: TagConstraint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register = tmp_path / "constraints.json"
        monkeypatch.setenv("HANGTAG_CONSTRAINTS", str(register))
        params = SamplingParams(max_tokens=100, extra_args={"hangtag": "shop"})
        with pytest.raises(VLLMValidationError, match="not a JSON object"):
            TagLogitsProcessor.validate_params(params)
        (tmp_path / "shop.constraint").write_bytes(constraint.path.read_bytes())
        register.write_text(json.dumps({"shop": "shop.constraint"}))
        TagLogitsProcessor.validate_params(params)
        for refused in ("other", str(constraint.path)):
            with pytest.raises(VLLMValidationError, match="registered names: shop"):
                TagLogitsProcessor.validate_params(SamplingParams(extra_args={"hangtag": refused}))

    def test_a_digest_is_looked_up_in_the_home(
        self, constraint: TagConstraint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HANGTAG_HOME", str(tmp_path))
        at_home = TagConstraint.compile(constraint.vocabulary, ByteTokenizer())
        assert to_arguments(at_home) == {"hangtag": at_home.digest}
        TagLogitsProcessor.validate_params(SamplingParams(max_tokens=100, extra_args=to_arguments(at_home)))
        assert to_arguments(constraint) == {"hangtag": str(constraint.path)}

    def test_limits_survive_the_way_there(self, constraint: TagConstraint) -> None:
        limits = Limits(2, 5, {"kind": FacetLimits(min=1, max=3)}, frozenset({"kind"}), with_parents=True)
        arguments = to_arguments(constraint, limits, num_prefix=9)
        arguments[EVIDENCE] = Evidence(range(len(WORDS)), stop=2.0).to_text()
        assert sorted(arguments) == sorted(KEYS)
        opening = read_opening(sampling_params(100, extra_args=json.loads(json.dumps(arguments))))
        expected = constraint.start(max_tokens=99, limits=limits, prefix=constraint.open[:9])
        assert opening.constraint.allowed(opening.state).tolist() == constraint.allowed(expected).tolist()
        assert opening.state.remaining == expected.remaining
        led = constraint.weighed(expected, Evidence(range(len(WORDS)), stop=2.0))
        opened = constraint.fork(opening.state)
        for token in constraint.forced(led):
            constraint.advance(opened, token)
            constraint.advance(led, token)
        assert constraint.bias(opened).tolist() == constraint.bias(led).tolist()

    def test_a_constraint_without_a_file_cannot_be_sent(self, constraint: TagConstraint) -> None:
        unsaved = TagConstraint.compile(constraint.vocabulary, ByteTokenizer(), cache=None)
        with pytest.raises(ConstraintError, match="not in a file"):
            to_arguments(unsaved)


def test_openings_are_shared_but_not_changed(constraint: TagConstraint) -> None:
    params = sampling_params(extra_args=to_arguments(constraint))
    one, other = Row(read_opening(params), END), Row(read_opening(params), END)
    assert read_opening(params) is read_opening(params)
    one.advance(constraint.encode(["red"]))
    assert one.allowed(NUM_COLUMNS).tolist() == [END]
    assert other.allowed(NUM_COLUMNS).tolist() == [ord("{")]


class TestKeepOnly:
    def test_strides_single_columns_and_untouched_rows(self) -> None:
        from hangtag.engines.token_mask import keep_only

        wide = torch.randn(6, 40)
        wide[3, 7] = -torch.inf
        for logits in (wide.clone(), wide.clone()[:, :30], wide.t().contiguous().t()):
            before = logits.clone()
            columns = [np.array(ids, np.int32) for ids in ([0, 29], [7], [3, 4, 5])]
            keep_only(logits, [1, 3, 4], columns, [np.array([0.5, -2.0]), None, None])
            for row, ids in zip([1, 3, 4], columns, strict=True):
                kept = torch.isfinite(logits[row]).nonzero().flatten()
                assert kept.tolist() == ids.tolist()
                if row == 1:
                    assert torch.allclose(logits[row, kept], before[row, kept] + torch.tensor([0.5, -2.0]))
                elif len(ids) > 1:
                    assert torch.equal(logits[row, kept], before[row, kept])
            assert float(logits[3, 7]) == 0.0
            assert torch.equal(logits[[0, 2, 5]], before[[0, 2, 5]])


class Engine:
    """SmolLM2 in vLLM, with a key-value cache so small that requests are preempted."""

    def __init__(self) -> None:
        import transformers
        from vllm import LLM

        from hangtag import load_dataset
        from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
        from hangtag.models import resolve_model
        from hangtag.sample import sample_folder

        dataset = load_dataset(sample_folder())
        self.path = str(resolve_model("smollm2-135m"))
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.path)
        self.constraint = TagConstraint.compile(dataset.vocabulary, HFPieceTokenizer(self.tokenizer))
        self.prefix = self.constraint.forced(self.constraint.start())
        self.prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": f"Write the tags of this product as JSON: {product.title}"}],
                add_generation_prompt=True,
                return_dict=False,
            )
            for product in dataset.test
        ]
        self.llm = LLM(
            self.path,
            dtype="float32",
            enforce_eager=True,
            max_model_len=384,
            max_num_seqs=16,
            max_num_batched_tokens=96,  # prompts are prefilled in chunks
            block_size=32,
            num_gpu_blocks_override=32,
            enable_prefix_caching=False,
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            disable_log_stats=False,
        )

    def params(self, limits: Limits | None = None, **options: Any) -> SamplingParams:
        arguments = to_arguments(self.constraint, limits, num_prefix=len(self.prefix))
        defaults = {
            "temperature": 0.0,
            "max_tokens": 60,
            "logprobs": 0,
            "detokenize": False,
            "stop_token_ids": [self.constraint.stop_token],
            "extra_args": arguments,
        }
        return SamplingParams(**(defaults | options))

    def generate(self, numbers: list[int], params: Any) -> list[Any]:
        prompts = [{"prompt_token_ids": [*self.prompts[n % len(self.prompts)], *self.prefix]} for n in numbers]
        return [out.outputs[0] for out in self.llm.generate(prompts, params, use_tqdm=False)]

    def score(self, output: Any) -> Any:
        ids = list(output.token_ids)
        logprobs = [step[token].logprob for token, step in zip(ids, output.logprobs, strict=True)]
        return self.constraint.score(ids, logprobs, prefix=self.prefix)

    def num_preemptions(self) -> int:
        return sum(m.value for m in self.llm.get_metrics() if m.name == "vllm:num_preemptions")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        engine = Engine()
        yield engine
        engine.llm.llm_engine.engine_core.shutdown()


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
class TestEngine:
    def test_mixed_requests_under_preemption_get_what_they_get_alone(self, engine: Engine) -> None:
        free = {"extra_args": None, "stop_token_ids": None}
        kinds = [
            engine.params(),
            engine.params(Limits(min_tags=3, max_tags=3)),
            engine.params(**free),
            engine.params(Limits(max_tags=5), temperature=1.0),
        ]
        numbers = list(range(24))
        params = [kinds[n % 4] for n in numbers]
        before = engine.num_preemptions()
        together = engine.generate(numbers, params)
        assert engine.num_preemptions() > before
        for number in numbers:
            output = together[number]
            if number % 4 != 2:
                assert output.stop_reason == engine.constraint.stop_token
                tags = engine.score(output).tags
                assert len(set(tags)) == len(tags)
                assert {1: len(tags) == 3, 3: len(tags) <= 5}.get(number % 4, True)
        for number in (0, 1, 2):
            [alone] = engine.generate([number], params[number])
            assert list(alone.token_ids) == list(together[number].token_ids)

    def test_hundreds_of_random_answers_are_legal(self, engine: Engine) -> None:
        numbers = list(range(300))
        limits = Limits(max_tags=2)
        # No seed per request: vLLM 0.32 dies on a CPU when it prefills the prompt of such a request in chunks.
        params = [engine.params(limits, temperature=1.0, max_tokens=12 + n % 8) for n in numbers]
        for output in engine.generate(numbers, params):
            assert output.finish_reason == "stop"
            scored = engine.score(output)
            assert len(set(scored.tags)) == len(scored.tags) <= 2
            assert all(0 <= confidence <= 1 for confidence in [*scored.confidences, scored.stop])

    def test_without_a_stop_token_the_end_of_text_follows_the_close(self, engine: Engine) -> None:
        [output] = engine.generate([0], engine.params(Limits(max_tags=3), stop_token_ids=None, max_tokens=40))
        assert output.finish_reason == "stop"
        *ids, end = output.token_ids
        assert end == engine.tokenizer.eos_token_id
        assert engine.constraint.decode([*engine.prefix, *ids])

    def test_invalid_arguments_are_refused_and_the_engine_lives_on(self, engine: Engine) -> None:
        for wrong in ({"hangtag": "nowhere"}, {"hangtag_min_tags": 1}):
            with pytest.raises(VLLMValidationError):
                engine.generate([0], SamplingParams(extra_args=wrong))
        engine.score(engine.generate([0], engine.params(Limits(max_tags=3)))[0])

    def test_confidences_agree_with_transformers(self, engine: Engine) -> None:
        import transformers

        from hangtag.engines.transformers_processor import TagLogitsProcessor as TransformersProcessor

        limits = Limits(min_tags=1, max_tags=4)
        numbers = list(range(8))
        outputs = engine.generate(numbers, engine.params(limits))
        model = transformers.AutoModelForCausalLM.from_pretrained(engine.path, dtype=torch.float32).eval()
        engine.tokenizer.padding_side = "left"
        batch = engine.tokenizer.pad(
            {"input_ids": [[*engine.prompts[n], *engine.prefix] for n in numbers]}, return_tensors="pt"
        )
        stop, eos = engine.constraint.stop_token, engine.tokenizer.eos_token_id
        processor = TransformersProcessor(
            engine.constraint,
            prompt_length=batch["input_ids"].shape[1],
            end_token=eos,
            max_tokens=60,
            limits=limits,
            prefix=engine.prefix,
        )
        out = model.generate(
            **batch,
            logits_processor=transformers.LogitsProcessorList([processor]),
            max_new_tokens=60,
            do_sample=False,
            eos_token_id=[eos, stop],
            pad_token_id=eos,
            renormalize_logits=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        logprobs = model.compute_transition_scores(out.sequences, out.scores)
        for row, output in enumerate(outputs):
            ids = out.sequences[row, batch["input_ids"].shape[1] :].tolist()
            ids = ids[: ids.index(stop) + 1]
            ours = engine.constraint.score(ids, logprobs[row, : len(ids)].tolist(), prefix=engine.prefix)
            theirs = engine.score(output)
            assert ours.tags == theirs.tags
            assert max(abs(a - b) for a, b in zip(ours.confidences, theirs.confidences, strict=True)) < 1e-3
            assert abs(ours.stop - theirs.stop) < 1e-3
