"""How the endpoint loads what it serves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engine import ByteTokenizer

from hangtag import TagVocabulary
from hangtag.constraint import Evidence, Limits
from hangtag.endpoint import vocabularies
from hangtag.endpoint.settings import EndpointSettings, VocabularySettings
from hangtag.endpoint.vocabularies import Begun, PromptOnlyEngine, Vocabularies
from hangtag.engines.vllm_arguments import read_opening, to_arguments
from hangtag.language_model.run import AnswerSettings
from hangtag.manifest import RunManifest
from hangtag.product import Product
from hangtag.tagging import to_answer


@pytest.fixture
def bytes_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(vocabularies, "load_tokenizer", lambda _: ByteTokenizer())
    for module in ("hangtag.endpoint.vocabularies", "hangtag.language_model.piece_tokenizer"):
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
    asked = to_arguments("shots", ask.limits, num_prefix=len(ask.prefix))
    assert ask.body([Begun([1])], {})["vllm_xargs"] == asked
    scores = [Evidence(range(5)), Evidence([0.0] * 5)]
    one = ask.body([Begun([1], scores[0])], {})["vllm_xargs"]
    assert one == asked | {"hangtag_evidence": scores[0].to_text()}
    both = ask.body([Begun([1], scores[0]), Begun([2], scores[1])], {})
    for prompt, expected in zip(both["prompt"], scores, strict=True):
        params = SimpleNamespace(
            extra_args=both["vllm_xargs"] | {"hangtag": str(loaded.default.constraint.path)},
            max_tokens=None,
            stop_token_ids=[],
        )
        opening = read_opening(params, prompt=prompt)
        assert opening is not None
        assert opening.state.evidence.to_text() == expected.to_text()


@pytest.mark.usefixtures("bytes_only")
@pytest.mark.parametrize("has_calibration", [False, True])
def test_a_run_brings_prompt_constraint_and_calibration(
    tmp_path: Path, vocabulary: TagVocabulary, has_calibration: bool
) -> None:
    run = make_run(tmp_path / "run", vocabulary)
    if has_calibration:
        rising = {"confidence": [0.0, 1.0], "precision": [0.25, 0.75]}
        (run / "calibration.json").write_text(json.dumps({"facets": {}, "other": rising}))
    loaded = Vocabularies.load(settings(VocabularySettings(name="default", run=str(run))))
    assert loaded.default.is_calibrated is has_calibration
    plan = loaded.default.tagger.plan
    assert (plan.limits, plan.max_tokens) == (Limits(min_tags=1, max_tags=2), 60)
    [prompt] = loaded.default.begin([Product(id="1", title="Red boots")])
    assert isinstance(prompt, Begun)
    assert "the run's own: Red boots" in ByteTokenizer().decode(prompt.ids)
    ask = loaded.default.ask({})
    ids = ByteTokenizer().encode([to_answer(["red"])])[0][len(ask.prefix) :]
    tagging = loaded.default.read("1", ids, [0.0] * len(ids), ask, None)
    assert [tag.confidence for tag in tagging.tags] == [0.75 if has_calibration else 1.0]


def make_run(folder: Path, vocabulary: TagVocabulary) -> Path:
    folder.mkdir()
    vocabulary.save(folder / "vocabulary.json")
    (folder / "prompt.jinja").write_text(
        "{% block system %}{% endblock %}{% block user %}the run's own: {{ product.title }}{% endblock %}"
    )
    answers = AnswerSettings(
        answer="text", min_tags=1, max_tags=2, max_tokens=60, title=9, description=9, attributes=9
    )
    RunManifest(
        program="sft.train", kind="lora", base_model="m", vocabulary=vocabulary.fingerprint,
        details={"answers": answers.model_dump()},
    ).write(folder)  # fmt: skip
    return folder


def test_the_engine_only_writes_prompts() -> None:
    with pytest.raises(NotImplementedError):
        PromptOnlyEngine("m", ByteTokenizer(), 64).stream([], None)  # type: ignore[arg-type]
