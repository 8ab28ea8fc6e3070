import os
import subprocess
import sys

import numpy as np
import pytest

from hangtag.encoders import nearest
from hangtag.encoders.nearest import NearestTexts, default_encoder
from hangtag.encoders.tfidf import TfidfEncoder

TEXTS = ["red leather boots", "blue cotton shirt", "green leather boots", "红色 连衣裙 夏季", "blue linen shirt"]


class LetterEncoder:
    """Counts a, b and c; enough to know every cosine by hand."""

    name = "letters"

    def encode(self, texts):
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)
        return counts.reshape(len(texts), 3) / np.maximum(np.linalg.norm(counts, axis=-1, keepdims=True), 1e-9)


def test_nearest_first_and_ties_by_position():
    positions, cosines = NearestTexts(LetterEncoder(), ["b", "a", "ab", "a"]).query(["aa", "b"], 3)
    assert positions.tolist() == [[1, 3, 2], [0, 2, 1]]
    assert cosines[0] == pytest.approx([1.0, 1.0, 2**-0.5], abs=1e-6)
    assert positions.dtype == np.intp
    assert cosines.dtype == np.float32


def test_ties_at_the_border_fall_by_position():
    positions, _ = NearestTexts(LetterEncoder(), ["a", "a", "a", "b"]).query(["a"], 2)
    assert positions.tolist() == [[0, 1]]


def test_more_neighbours_than_texts_gives_all():
    positions, _ = NearestTexts(LetterEncoder(), ["b", "a"]).query(["a"], 9)
    assert positions.tolist() == [[1, 0]]


def test_nothing_to_ask_and_nothing_to_find():
    assert NearestTexts(LetterEncoder(), ["a"]).query([], 2)[0].shape == (0, 1)
    assert NearestTexts(LetterEncoder(), []).query(["a"], 2)[0].shape == (1, 0)
    with pytest.raises(ValueError, match="k = 0"):
        NearestTexts(LetterEncoder(), ["a"]).query(["a"], 0)


def test_long_lists_are_answered_in_parts(monkeypatch):
    texts = ["a" * n + "b" * (20 - n) for n in range(21)]
    whole = NearestTexts(LetterEncoder(), texts).query(texts, 3)
    monkeypatch.setattr(nearest, "_QUERY_ROWS", 4)
    parts = NearestTexts(LetterEncoder(), texts).query(texts, 3)
    assert np.array_equal(whole[0], parts[0])
    assert whole[0][:, 0].tolist() == list(range(21))


def test_tfidf_finds_the_like_in_both_scripts():
    found = NearestTexts(TfidfEncoder(TEXTS), TEXTS)
    positions, cosines = found.query(["black leather boots", "连衣裙", "BLUE shirt"], 2)
    assert set(positions[0].tolist()) == {0, 2}
    assert positions[1, 0] == 3
    assert set(positions[2].tolist()) == {1, 4}
    assert cosines.max() <= 1.0 + 1e-6


def test_tfidf_vectors_have_length_one_and_empty_text_none():
    vectors = TfidfEncoder(TEXTS).encode(["red boots", "", "?!"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 0.0, 0.0])
    assert vectors.dtype == np.float32


def test_tfidf_is_the_same_in_another_process():
    code = (
        "from hangtag.encoders.tfidf import TfidfEncoder;"
        "print(TfidfEncoder(['a cat','a dog']).encode(['cat dog'])[0].nonzero()[0].tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs != {"[]\n"}


def test_default_is_tfidf_where_no_encoder_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path))
    assert default_encoder(TEXTS).name == "tfidf"


@pytest.mark.model
def test_minilm_knows_synonyms_and_keeps_long_lists(monkeypatch, tmp_path):
    from hangtag.encoders.minilm import MiniLmEncoder
    from hangtag.models import resolve_model

    source = resolve_model("minilm-l6")
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path))
    encoder = MiniLmEncoder(source)
    texts = ["a warm pullover", "running shoes", "a saucepan with lid", ""]
    positions, _ = NearestTexts(encoder, texts).query(["knitted jumper", "sneakers", "cooking pot"], 1)
    assert positions[:, 0].tolist() == [0, 1, 2]
    assert np.linalg.norm(encoder.encode(texts), axis=1) == pytest.approx(np.ones(4), abs=1e-5)

    many = [f"product {number}" for number in range(300)]
    first = encoder.encode(many)
    assert len(list((tmp_path / "embeddings").iterdir())) == 1
    monkeypatch.setattr(encoder, "_compute", lambda texts: pytest.fail("computed again"))
    assert np.array_equal(encoder.encode(many), first)
