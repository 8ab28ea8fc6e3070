"""The transformers processor in `generate` of a tiny random model; agreement with vLLM in the plug-in's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_tokenizers import ByteTokenizer

from hangtag import Tag, TagVocabulary
from hangtag.constraint import Evidence, Limits, TagConstraint
from hangtag.errors import ConstraintError
from hangtag.vocabulary import FacetLimits

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hangtag.engines.transformers_processor import TagLogitsProcessor  # noqa: E402

END, PAD, MAX_TOKENS = 0, 1, 48
WORDS = ("red", "navy", "navy blue", "blue", "b", "shoe", "trail shoe", "wool", "wool mix", "靴")


@pytest.fixture(scope="module")
def constraint() -> TagConstraint:
    vocabulary = TagVocabulary(
        [Tag(word, "colour" if number < 5 else "kind") for number, word in enumerate(WORDS)],
        facets={"colour": FacetLimits(max=2)},
    )
    return TagConstraint.compile(vocabulary, ByteTokenizer(), cache=None)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return transformers.LlamaForCausalLM(config).eval()


def padded(lengths: list[int], prefix: list[int]) -> Any:
    """Return left-padded random prompts that end with `prefix`, and their mask."""
    generator = torch.Generator().manual_seed(3)
    width = max(lengths) + len(prefix)
    ids, mask = torch.full((len(lengths), width), PAD), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        start = width - length - len(prefix)
        ids[row, start : start + length] = torch.randint(2, 300, (length,), generator=generator)
        ids[row, start + length :] = torch.tensor(prefix, dtype=torch.long)
        mask[row, start:] = 1
    return ids, mask


def generate(
    model: Any,
    constraint: TagConstraint,
    ids: Any,
    mask: Any,
    *,
    prefix: list[int],
    limits: Limits,
    evidence: list[Evidence | None] | None = None,
    **options: Any,
) -> Any:
    processor = TagLogitsProcessor(
        constraint,
        prompt_length=ids.shape[1],
        end_token=END,
        max_tokens=MAX_TOKENS,
        limits=limits,
        prefix=prefix,
        evidence=evidence,
    )
    return model.generate(
        ids,
        attention_mask=mask,
        logits_processor=transformers.LogitsProcessorList([processor]),
        max_new_tokens=MAX_TOKENS + 1,
        renormalize_logits=True,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def answer(row: Any) -> list[int]:
    """Return the generated tokens up to the end-of-text token, which must be there."""
    ids = row.tolist()
    assert END in ids
    assert set(ids[ids.index(END) + 1 :]) <= {PAD}
    return ids[: ids.index(END)]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 1.0, "top_k": 0},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 3, "top_k": 0},
    ],
    ids=["greedy", "sampling", "beams", "sampled beams"],
)
@pytest.mark.parametrize("num_given", [0, 9])
@pytest.mark.parametrize("limits", [Limits(), Limits(min_tags=2, max_tags=4)], ids=["free", "two to four"])
def test_every_answer_is_a_legal_set_within_the_budget(
    model: Any, constraint: TagConstraint, options: dict[str, Any], num_given: int, limits: Limits
) -> None:
    torch.manual_seed(5)
    prefix = constraint.open[:num_given]
    ids, mask = padded([3, 11, 7], prefix)
    out = generate(model, constraint, ids, mask, prefix=prefix, limits=limits, **options)
    assert len(out.sequences) == 3 * options.get("num_return_sequences", 1)
    for row in out.sequences[:, ids.shape[1] :]:
        written = answer(row)
        assert len(written) <= MAX_TOKENS
        tags = constraint.decode([*prefix, *written])
        assert limits.min_tags <= len(tags) <= (limits.max_tags or len(WORDS))
        assert sum(constraint.vocabulary[tag].facet == "colour" for tag in tags) <= 2


def test_a_row_gets_the_same_answer_alone_as_in_a_padded_batch(model: Any, constraint: TagConstraint) -> None:
    limits = Limits(min_tags=1, max_tags=5)
    ids, mask = padded([3, 11, 7], [])
    for options in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        together = generate(model, constraint, ids, mask, prefix=[], limits=limits, **options).sequences
        for row in range(3):
            start = int((mask[row] == 0).sum())
            alone = generate(
                model,
                constraint,
                ids[row : row + 1, start:],
                mask[row : row + 1, start:],
                prefix=[],
                limits=limits,
                **options,
            ).sequences
            assert answer(alone[0, ids.shape[1] - start :]) == answer(together[row, ids.shape[1] :])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_evidence_leads_each_prompt_by_itself(model: Any, constraint: TagConstraint, num_beams: int) -> None:
    limits = Limits(max_tags=3)
    sure = {row: Evidence(np.where(np.arange(len(WORDS)) == tag, 40.0, -40.0)) for row, tag in ((0, 2), (2, 9))}
    ids, mask = padded([3, 11, 7], [])
    options = {"do_sample": False, "num_beams": num_beams, "num_return_sequences": num_beams}
    plain = generate(model, constraint, ids, mask, prefix=[], limits=limits, **options).sequences
    evidence = [sure[0], None, sure[2]]
    led = generate(model, constraint, ids, mask, prefix=[], limits=limits, evidence=evidence, **options).sequences
    answers = [answer(row[ids.shape[1] :]) for row in led]
    assert constraint.decode(answers[0]) == [WORDS[2]]
    assert constraint.decode(answers[2 * num_beams]) == [WORDS[9]]
    alone = answers[num_beams : 2 * num_beams]
    assert alone == [answer(row[ids.shape[1] :]) for row in plain[num_beams : 2 * num_beams]]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_scores_are_the_log_probabilities_of_the_allowed_tokens(
    model: Any, constraint: TagConstraint, num_beams: int
) -> None:
    ids, mask = padded([5], [])
    out = generate(
        model, constraint, ids, mask, prefix=[], limits=Limits(min_tags=1), do_sample=False, num_beams=num_beams
    )
    written = answer(out.sequences[0, ids.shape[1] :])
    beams = {"beam_indices": out.beam_indices} if num_beams > 1 else {}
    logprobs = model.compute_transition_scores(out.sequences, out.scores, **beams)[0, : len(written)].tolist()
    state = constraint.start(max_tokens=MAX_TOKENS, limits=Limits(min_tags=1))
    context = ids
    for token, logprob in zip(written, logprobs, strict=True):
        logits = model(context).logits[0, -1].detach()
        allowed = constraint.allowed(state).tolist()
        expected = logits[allowed].log_softmax(dim=-1)[allowed.index(token)]
        assert logprob == pytest.approx(float(expected), abs=1e-4)
        constraint.advance(state, token)
        context = torch.cat([context, torch.tensor([[token]])], dim=1)
    scored = constraint.score(written, logprobs)
    assert list(scored.tags) == constraint.decode(written)


def test_scores_that_were_given_are_not_changed(constraint: TagConstraint) -> None:
    processor = TagLogitsProcessor(constraint, prompt_length=2, end_token=END)
    scores = torch.randn(2, 300)
    before = scores.clone()
    kept = processor(torch.tensor([[5, 6], [7, 8]]), scores)
    assert torch.equal(scores, before)
    assert torch.isfinite(kept).sum(dim=1).tolist() == [1, 1]


def test_a_beam_that_left_the_constraint_may_only_end(constraint: TagConstraint) -> None:
    processor = TagLogitsProcessor(constraint, prompt_length=0, end_token=END)
    processor(torch.zeros(2, 0, dtype=torch.long), torch.randn(2, 300))
    for step in (1, 2):
        rows = [[9] * step, constraint.open[:step]]
        kept = processor(torch.tensor(rows), torch.randn(2, 300))
        assert torch.isfinite(kept[0]).nonzero().flatten().tolist() == [END]
        assert torch.isfinite(kept[1]).nonzero().flatten().tolist() == [constraint.open[step]]


def test_limits_that_admit_no_answer_are_refused(constraint: TagConstraint) -> None:
    with pytest.raises(ConstraintError, match="max_tokens"):
        TagLogitsProcessor(constraint, prompt_length=0, end_token=END, max_tokens=5)
