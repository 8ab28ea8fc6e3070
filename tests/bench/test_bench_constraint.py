from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.constraint import MAX_TOKENS, _walk, main, synthetic_vocabulary


def test_synthetic_vocabulary_is_deterministic_and_limited() -> None:
    vocabulary = synthetic_vocabulary(1000)
    assert len(vocabulary) == 1000
    assert vocabulary.fingerprint == synthetic_vocabulary(1000).fingerprint
    assert vocabulary.fingerprint != synthetic_vocabulary(1000, seed=1).fingerprint
    assert len(vocabulary.facet_names) == 8
    assert sum(limit.is_exclusive for limit in vocabulary.facets.values()) == 3


@pytest.mark.model
def test_benchmark_reports_every_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert main(["--sizes", "50", "--steps", "100", "--engines", "set", "xgrammar", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    rows = document["results"]
    assert [(row["engine"], row["num_tags"]) for row in rows] == [("set", 50), ("xgrammar", 50)]
    for row in rows:
        assert "failed" not in row
        # The answer in hand is walked to its end, and no answer has so many tokens.
        assert 100 <= row["steps"] < 100 + MAX_TOKENS
    assert ["load_s" in row for row in rows] == [True, False]


class Engine:
    """Every call takes a microsecond more than the one before; `refused` is the token that it does not take."""

    note = None

    def __init__(self, refused: int = -1) -> None:
        self.now = 0.0
        self.refused = refused
        self.seen: list[int] = []

    def begin(self) -> None:
        self.step(-2)

    def step(self, token: int) -> bool:
        self.seen.append(token)
        self.now += len(self.seen) * 1e-6
        return token != self.refused


def walked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, num_steps: int, limit_s: float = 1.0
) -> list[float]:
    monkeypatch.setattr("bench.constraint.time.perf_counter", lambda: engine.now)
    answers = iter([[5, 6, 7], [8, 9], [1, 2, 3, 4]])
    times: list[float] = _walk(engine, answers, num_steps, limit_s).tolist()
    return times


def test_every_step_is_timed_alone_and_whole_answers_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    assert walked(engine, monkeypatch, num_steps=4) == pytest.approx([1, 2, 3, 4, 5])
    # No mask follows an answer's last token.
    assert engine.seen == [-2, 5, 6, -2, 8]


def test_a_walk_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(walked(Engine(), monkeypatch, num_steps=100, limit_s=5.5e-6)) == 3


def test_an_engine_that_refuses_a_legal_answer_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="refuses token 6"):
        walked(Engine(refused=6), monkeypatch, num_steps=4)
