"""What only a GPU shows: the plug-in in vLLM's runner there, and batches that are accumulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_training import run, write_recipe

from hangtag import Dataset, Limits, load_dataset, load_tagger
from hangtag.constraint import parse_answer
from hangtag.language_model.generative import Request
from hangtag.models import PACKAGED_MODELS
from hangtag.sample import sample_folder

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load_dataset(sample_folder())


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    pytest.importorskip("vllm")
    if not PACKAGED_MODELS["smollm2-135m"].is_fetched:
        pytest.skip("base model not fetched: smollm2-135m (make setup)")
    from hangtag.engines.vllm_offline import VllmEngine

    engine = VllmEngine("smollm2-135m", max_in_flight=256)
    yield engine
    engine.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("limits", [Limits(max_tags=6), Limits(min_tags=2, max_tags=3)], ids=["up_to_6", "2_or_3"])
def test_every_answer_of_a_full_batch_is_a_correct_set(
    sample: Dataset, engine: Any, limits: Limits, temperature: float
) -> None:
    tagger = load_tagger(sample.vocabulary, engine, limits=limits)
    products = (sample.test + sample.train)[:600]
    plan = replace(tagger.plan, temperature=temperature)
    requests = [
        Request(key, ids) for key, ids in enumerate(tagger.prompt_ids(products)) if not isinstance(ids, str)
    ]
    answers = dict(engine.stream(requests, plan))
    assert answers.keys() == {request.key for request in requests}
    for generation in answers.values():
        text = engine.tokenizer.decode([*plan.prefix, *generation.token_ids], skip_special_tokens=True)
        answer = parse_answer(text, sample.vocabulary, plan.limits)
        assert answer.is_correct_set, (text, answer.reason, answer.violations)


def test_eight_accumulated_rows_train_as_a_batch_of_eight(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    states = []
    for size, steps in ((8, 1), (1, 8)):
        trainer = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        recipe = write_recipe(tmp_path, dropout=0.0, trainer=trainer, limit=8)
        out = tmp_path / f"run{size}"
        assert run(recipe, "--data", sample_folder(), "--out", out) == 0
        states.append(
            load_file(out / "adapter" / "adapter_model.safetensors")
            | load_file(out / "adapter" / "tag_rows.safetensors")
        )
    assert states[0].keys() == states[1].keys()
    for name, weights in states[0].items():
        assert torch.allclose(weights, states[1][name], atol=1e-4), name
