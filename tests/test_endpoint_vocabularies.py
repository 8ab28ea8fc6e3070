"""How the endpoint loads what it serves."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hangtag import TagVocabulary, loading
from hangtag.constraint import Limits, TagConstraint
from hangtag.endpoint import vocabularies
from hangtag.endpoint.settings import EndpointSettings, VocabularySettings
from hangtag.endpoint.vocabularies import PromptOnlyEngine, Vocabularies
from hangtag.prompt import Prompter
from hangtag.taggers.fake import ByteTokenizer
from hangtag.taggers.generative import GenerativeTagger
from hangtag.taggers.vllm_arguments import to_arguments


@pytest.fixture
def bytes_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(vocabularies, "load_tokenizer", lambda _: ByteTokenizer())
    for module in ("hangtag.endpoint.vocabularies", "hangtag.taggers.piece_tokenizer"):
        monkeypatch.setattr(f"{module}.HFPieceTokenizer", lambda tokenizer: tokenizer)


def settings(*entries: VocabularySettings) -> EndpointSettings:
    return EndpointSettings(
        model="m", names=("hangtag", "hangtag-m"), is_cpu=True, max_model_len=4096, vocabularies=entries
    )


@pytest.mark.usefixtures("bytes_only")
def test_prompted_vocabularies_take_their_own_limits(tmp_path: Path, vocabulary: TagVocabulary) -> None:
    vocabulary.save(tmp_path / "tags.json")
    (tmp_path / "labelled.jsonl").write_text(
        json.dumps({"title": "x", "tags": ["red", "shoes", "waterproof"]}) + "\n"
    )
    plain = VocabularySettings(name="plain", vocabulary=str(tmp_path / "tags.json"), max_tags=2)
    shots = VocabularySettings(
        name="shots", vocabulary=str(tmp_path / "tags.json"), examples=str(tmp_path / "labelled.jsonl"), shots=0,
        with_parents=True,
    )  # fmt: skip
    loaded = Vocabularies.load(settings(plain, shots))
    assert loaded.default.name == "plain"
    assert loaded.choose("shots").tagger.plan.limits == Limits(max_tags=3, with_parents=True)
    assert loaded.default.tagger.name == "hangtag-m"
    # vLLM's process finds the constraint by this file.
    assert loaded.default.constraint.path is not None
    ask = loaded.choose("shots").ask({"hangtag_with_parents": 0})
    assert ask.limits == Limits(max_tags=3)
    assert ask.body([[1]], {})["vllm_xargs"] == to_arguments("shots", ask.limits, num_prefix=len(ask.prefix))


@pytest.mark.parametrize("has_calibration", [False, True])
def test_a_run_brings_prompt_constraint_and_calibration(
    tmp_path: Path, vocabulary: TagVocabulary, monkeypatch: pytest.MonkeyPatch, has_calibration: bool
) -> None:
    """Against the signatures of `loading.read_run`, `loading.fine_tuned_tagger` and `Calibration.load`."""
    calls: list[Any] = []

    class Calibration:
        @classmethod
        def load(cls, path: Path) -> str:
            return f"calibration of {path}"

    def fine_tuned_tagger(engine: Any, tags: TagVocabulary, answers: Any, **options: Any) -> GenerativeTagger:
        calls.append((answers, options))
        constraint = TagConstraint.compile(tags, ByteTokenizer(), cache=None)
        return GenerativeTagger(engine, Prompter(tags, ByteTokenizer()), constraint=constraint)

    module = types.ModuleType("hangtag.calibration")
    module.Calibration = Calibration  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hangtag.calibration", module)
    monkeypatch.setattr(loading, "read_run", lambda run: ("answers", vocabulary), raising=False)
    monkeypatch.setattr(loading, "fine_tuned_tagger", fine_tuned_tagger, raising=False)
    path = tmp_path / "calibration.json"
    if has_calibration:
        path.write_text("{}")
    engine = PromptOnlyEngine("m", ByteTokenizer(), 4096)
    tagger, is_calibrated = vocabularies._load_run(tmp_path, engine)
    expected = f"calibration of {path}" if has_calibration else None
    assert calls == [("answers", {"template": tmp_path / "prompt.jinja", "calibration": expected})]
    assert is_calibrated is has_calibration
    assert tagger.vocabulary is vocabulary


def test_the_engine_only_writes_prompts() -> None:
    with pytest.raises(NotImplementedError):
        PromptOnlyEngine("m", ByteTokenizer(), 64).stream([], None)  # type: ignore[arg-type]
