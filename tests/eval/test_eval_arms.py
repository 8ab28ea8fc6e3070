"""Which arms are there, what each is made of, and how they are loaded."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest

import eval.arms
from eval.arms import Arm, ArmLoader, choose_arms, code_sha256, identity
from eval.settings import Endpoint, Evaluation
from hangtag.catalogue.labelled import load_dataset
from hangtag.errors import EngineError, RecipeError
from hangtag.manifest import RunManifest
from tests.eval_dataset import write_dataset

ANSWERS = {
    "answer": "tag_tokens", "min_tags": 0, "max_tags": 3, "max_tokens": 8, "title": 64, "description": 64,
    "attributes": 64,
}  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    return load_dataset(write_dataset(tmp_path / "shop"))


def write_run(folder, dataset, kind, **details):
    folder.mkdir()
    dataset.vocabulary.save(folder / "vocabulary.json")
    vocabulary = dataset.vocabulary.fingerprint
    if kind != "bert":
        (folder / "prompt.jinja").write_text("{{ product.title }}")
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        details |= {"answers": ANSWERS, "export": {"sha256": "aa"}}
    RunManifest(program="t", kind=kind, base_model="m", vocabulary=vocabulary, details=details).write(folder)
    return folder


def test_arms_that_lack_something_name_the_command(dataset, monkeypatch, tmp_path):
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "empty"))
    absent = {"sklearn", "vllm"}
    monkeypatch.setattr(eval.arms, "_is_installed", lambda module: module not in absent)
    found, missing = choose_arms(Evaluation(), (), dataset)
    assert [arm.name for arm in found] == ["majority", "lexical", "evidence", "nearest"]
    assert missing["linear"] == "pip install 'hangtag[eval]'"
    assert "hangtag model fetch minilm-l6" in missing["bert"]
    assert "hangtag model fetch smollm2-135m" in missing["zero_shot"]
    assert missing["qlora"] == "give a fine-tuned run: --run DIR"
    assert missing["http"].startswith("give an endpoint")
    absent.add("transformers")
    assert choose_arms(Evaluation(), (), dataset)[1]["few_shot"].startswith("pip install 'hangtag[cpu]'")
    with pytest.raises(RecipeError, match=r"arm 'linear' is not there: pip install"):
        choose_arms(Evaluation(arms=("majority", "linear")), (), dataset)


def test_a_large_dataset_wants_a_trained_bert(dataset):
    large = replace(dataset, train=dataset.train * 10)
    missing = choose_arms(Evaluation(), (), large)[1]
    assert "python -m sft.train_bert --data" in missing["bert"]


def test_runs_are_arms_of_their_own(dataset, tmp_path):
    bert = write_run(tmp_path / "one", dataset, "bert")
    loras = tuple(write_run(tmp_path / name, dataset, "qlora") for name in ("r8", "r16"))
    found, _ = choose_arms(Evaluation(arms=("majority",)), (bert, *loras), dataset)
    assert [arm.name for arm in found] == ["majority", "bert", "qlora-r8", "qlora-r16"]
    found, _ = choose_arms(Evaluation(arms=("qlora:unconstrained", "bert")), (bert, *loras), dataset)
    assert [(arm.name, arm.decoding) for arm in found] == [
        ("qlora-r8:unconstrained", "free"),
        ("qlora-r16:unconstrained", "free"),
        ("bert", "set"),
    ]
    assert found[0].run == loras[0]


def test_a_run_with_and_without_constraint(dataset, tmp_path):
    run = write_run(tmp_path / "r8", dataset, "qlora")
    found, _ = choose_arms(Evaluation(arms=("qlora", "qlora:unconstrained")), (run,), dataset)
    assert [(arm.name, arm.decoding) for arm in found] == [("qlora", "set"), ("qlora:unconstrained", "free")]


def test_a_run_is_called_by_its_method(dataset, tmp_path):
    runs = tuple(write_run(tmp_path / method, dataset, method, method=method) for method in ("qlora", "lora"))
    found, _ = choose_arms(Evaluation(arms=("qlora",)), runs, dataset)
    assert [arm.name for arm in found] == ["qlora", "lora"]
    before = identity(found[1], Evaluation(), dataset)
    assert before["method"] == "lora"
    (runs[1] / "calibration.json").write_text("{}")
    assert identity(found[1], Evaluation(), dataset) != before


def test_identity_changes_with_what_decides_the_answers(dataset):
    endpoint = Endpoint(url="http://x/v1", model="m")
    recipe = Evaluation(http=endpoint)
    arm = Arm("http", "http")
    before = identity(arm, recipe, dataset)
    assert before["url"] == "http://x/v1"
    other = Evaluation(http=endpoint.model_copy(update={"model": "n"}))
    assert identity(arm, other, dataset) != before
    assert identity(Arm("http:unconstrained", "http", "free"), recipe, dataset) != before
    faster = Evaluation(http=endpoint.model_copy(update={"concurrency": 2}))
    assert identity(arm, faster, dataset) == before
    assert json.dumps(before)


@pytest.mark.parametrize("name", ["baselines/majority.py", "catalogue/noise.py", "encoders/nearest.py", "spec.py"])
def test_identity_changes_with_any_code_of_the_package(dataset, tmp_path, monkeypatch, name):
    package = tmp_path / "hangtag"
    shutil.copytree(eval.arms._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(eval.arms, "_PACKAGE", package)
    arm = Arm("majority", "majority")
    before = identity(arm, Evaluation(), dataset)
    code_sha256.cache_clear()
    assert identity(arm, Evaluation(), dataset) == before
    (package / name).rename(package / "renamed.py")
    code_sha256.cache_clear()
    assert identity(arm, Evaluation(), dataset) != before


def test_a_small_dataset_gets_its_bert_trained_once(dataset, tmp_path, monkeypatch):
    commands = []

    def train(command, **_):
        commands.append(command)
        run = next(tmp_path.glob("runs/bert-*.yaml")).with_suffix("")
        if len(commands) == 1:
            run.mkdir()
            (run / "recipe.yaml").write_text("")
            return subprocess.CompletedProcess(command, 1, "", "log\nout of memory\n")
        (run / "manifest.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(eval.arms.subprocess, "run", train)
    loader = ArmLoader(Evaluation(), dataset, tmp_path / "runs")
    with pytest.raises(EngineError, match=r"training the bert arm failed \(out of memory\)"):
        loader._quick_bert()
    run = loader._quick_bert()
    assert loader._quick_bert() == run
    assert len(commands) == 2
    assert commands[0][1:3] == ["-m", "sft.train_bert"]
    assert commands[0][-1].endswith(".yaml")
    assert commands[1][-1] == "--resume"


def test_light_arms_load_and_tag(dataset):
    limited = dataset.vocabulary.with_observed_limits(product.tags for product in dataset.train)
    loader = ArmLoader(Evaluation(), replace(dataset, vocabulary=limited), dataset.folder)
    for kind in ("majority", "lexical"):
        contestant = loader.load(Arm(kind, kind))
        assert [tagging.id for tagging in contestant.tagger.tag(dataset.test[:3])] == [
            "test-0",
            "test-1",
            "test-2",
        ]
