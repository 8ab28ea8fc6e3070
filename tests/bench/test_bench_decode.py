from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine

from bench import decode
from hangtag import Product, TagVocabulary, load_tagger
from hangtag.language_model.prompt import Budget


def test_a_product_without_room_is_not_decoded(vocabulary: TagVocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.language_model.piece_tokenizer.HFPieceTokenizer", lambda tokenizer: tokenizer)
    products = [Product(id="1", title="red"), Product(id="2", title="long " * 40), Product(id="3", title="blue")]
    tagger = load_tagger(vocabulary, FakeEngine(), budget=Budget(shortlist=0), evidence=None)
    lengths = list(map(len, tagger.prompt_ids(products)))
    assert lengths[0] <= lengths[2] < lengths[1] - 16

    def engine(*_: Any, **__: Any) -> FakeEngine:
        made: Any = FakeEngine(max_model_len=lengths[2] + 64 + 1)
        made.dtype, made.close = "float32", lambda: None
        return made

    monkeypatch.setattr("hangtag.engines.vllm_offline.VllmEngine", engine)
    options = {"model": "m", "dtype": None, "in_flight": 2, "max_tags": 2, "max_tokens": 64, "temperature": 0.0}
    requests, sent = iter([{"exact_tokens": None}, None]), []
    connection: Any = SimpleNamespace(send=sent.append, recv=lambda: next(requests))
    decode._work(connection, "set", options | {"fine_tuned": None}, vocabulary.to_json(), products)
    dtype, figures = sent
    assert dtype == "float32"
    assert figures["answers"] == 2
    assert figures["incorrect"] == 0
