"""Real labelled catalogues, where they are to be had: every gold answer can be written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from hangtag import TagConstraint, load_dataset
from hangtag.constraint import parse_answer
from hangtag.tagging import to_answer


@pytest.mark.model
@pytest.mark.parametrize("name", ["hm", "myntra", "zh_ecommerce"])
def test_every_gold_answer_is_legal_and_reads_back(labelled_data: Path, name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
    from hangtag.models import resolve_model

    data = load_dataset(labelled_data / name)
    vocabulary = data.vocabulary.with_observed_limits(product.tags or () for product in data.train)
    tokenizer = HFPieceTokenizer(AutoTokenizer.from_pretrained(resolve_model("smollm2-135m")))
    constraint = TagConstraint.compile(vocabulary, tokenizer, cache=tmp_path)
    for product in data.test:
        tags = vocabulary.in_order(product.tags or ())
        ids = constraint.encode(tags)
        assert tokenizer.decode(ids) == to_answer(tags)
        assert constraint.decode(ids) == list(tags)
        assert parse_answer(to_answer(tags), data.vocabulary).tags == tags
