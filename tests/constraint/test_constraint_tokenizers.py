from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hangtag.constraint import Limits, TagConstraint
from hangtag.errors import ConstraintError
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.models import resolve_model
from hangtag.tagging import to_answer
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

NAMES = (
    "red",
    "red-brown",
    "navy blue",
    '12" wide',
    "back\\slash",
    "café",
    "靴",
    "👟 sneaker",
    "<|im_end|>",
    "a/b",
    "1",
)
VOCABULARY = TagVocabulary([Tag(name, f"f{n % 3}") for n, name in enumerate(NAMES)]).with_limits(
    {"f0": FacetLimits(max=1), "f1": FacetLimits(min=1)}
)


def metaspace_tokenizer(*, adds_space: bool) -> SimpleNamespace:
    """A byte-fallback BPE that marks spaces, as SentencePiece does."""
    tokenizers = pytest.importorskip("tokenizers")
    scheme = "first" if adds_space else "never"
    words = [
        "▁",
        "a",
        "b",
        "r",
        "e",
        "d",
        "re",
        "▁re",
        "red",
        "▁red",
        '"',
        ",",
        "{",
        "t",
        "g",
        "s",
        ":",
        "[",
        "]",
        "}",
    ]
    vocabulary = {word: number for number, word in enumerate([f"<0x{byte:02X}>" for byte in range(256)] + words)}
    merges = [("r", "e"), ("▁", "re"), ("re", "d"), ("▁re", "d")]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, byte_fallback=True, unk_token=None))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            *([tokenizers.decoders.Strip(" ", 1, 0)] if adds_space else []),
        ]
    )
    return SimpleNamespace(backend_tokenizer=backend)


@pytest.mark.parametrize("adds_space", [False, True])
def test_pieces_of_a_sentencepiece_like_tokenizer_join_to_the_answer(adds_space: bool) -> None:
    tokenizer = HFPieceTokenizer(metaspace_tokenizer(adds_space=adds_space))
    constraint = TagConstraint.compile(VOCABULARY, tokenizer, cache=None)
    for tags in ([], ["red"], ["red", "navy blue", "靴"], list(NAMES)):
        ids = constraint.encode(tags)
        assert tokenizer.decode(ids) == to_answer(tags)
        assert constraint.decode(ids) == tags
    assert len(tokenizer.encode(["red"])[0]) == 1


def test_special_tokens_and_settings_of_the_shared_tokenizer_do_not_matter() -> None:
    shared = metaspace_tokenizer(adds_space=False)
    shared.backend_tokenizer.add_special_tokens(["<|im_end|>"])
    before = HFPieceTokenizer(shared)
    shared.backend_tokenizer.enable_truncation(2)
    shared.backend_tokenizer.enable_padding(length=40)
    after = HFPieceTokenizer(shared)
    assert before.fingerprint == after.fingerprint
    special = shared.backend_tokenizer.token_to_id("<|im_end|>")
    for tokenizer in (before, after):
        [ids] = tokenizer.encode(["a<|im_end|>b"])
        assert special not in ids
        assert tokenizer.decode(ids) == "a<|im_end|>b"
    assert shared.backend_tokenizer.truncation is not None


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no fast tokenizer"):
        HFPieceTokenizer(object())


@pytest.mark.model
def test_real_tokenizer_walks_close_and_decode() -> None:
    from transformers import AutoTokenizer

    tokenizer = HFPieceTokenizer(AutoTokenizer.from_pretrained(resolve_model("smollm2-135m")))
    constraint = TagConstraint.compile(VOCABULARY, tokenizer, cache=None)
    assert tokenizer.decode(constraint.encode(NAMES)) == to_answer(NAMES)
    assert constraint.stop_token == constraint.close[-1]
    rng = np.random.default_rng(5)
    for max_tokens in [*range(10, 40), 200] * 4:
        state, written = constraint.start(max_tokens=max_tokens, limits=Limits(min_tags=1, max_tags=5)), []
        while not state.is_done:
            written.append(int(rng.choice(constraint.allowed(state))))
            constraint.advance(state, written[-1])
        tags = constraint.decode(written)
        assert len(written) <= max_tokens
        assert tokenizer.decode(written) == to_answer(tags)
        facets = [VOCABULARY[tag].facet for tag in tags]
        assert facets.count("f0") <= 1 <= facets.count("f1")
        assert 1 <= len(set(tags)) == len(tags) <= 5


@pytest.mark.model
def test_word_pieces_that_lose_spaces_are_refused() -> None:
    from transformers import AutoTokenizer

    tokenizer = HFPieceTokenizer(AutoTokenizer.from_pretrained(resolve_model("minilm-l6")))
    with pytest.raises(ConstraintError, match="cannot spell JSON"):
        TagConstraint.compile(VOCABULARY, tokenizer, cache=None)
