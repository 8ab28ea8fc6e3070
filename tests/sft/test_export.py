from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml

from hangtag import Product, Tag, TagVocabulary
from hangtag.errors import DataError, TrainingError
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.language_model.tag_tokens import check_unreachable, extend_tokenizer
from hangtag.loading import load_run_tagger
from hangtag.models import PACKAGED_MODELS
from hangtag.sample import sample_folder
from hangtag.spec import of_run
from hangtag.tagging import ScoredTag, Tagging
from sft.export import main
from sft.int8 import quantise
from sft.parity import EXACT, Parity

ROOT = Path(__file__).resolve().parents[2]
ODD_TAGS = (
    "red", 'say "hi"', "back\\slash", "été", "红色", "👟", "]}", '","', "a", "1", "%", "two  spaces", ":",
    "children accessories, swimwear",
)  # fmt: skip


def tagging(*tags: tuple[str, float]) -> Tagging:
    scored = tuple(ScoredTag(tag=tag, confidence=confidence) for tag, confidence in tags)
    return Tagging(id="1", tags=scored, model="m", vocabulary="v")


def test_parity_compares_tags_in_order_and_their_confidences():
    one = [tagging(("a", 0.5), ("b", 0.25)), tagging(("a", 0.5))]
    other = [tagging(("a", 0.5), ("b", 0.2505)), tagging(("b", 0.5))]
    found = Parity.of(("one", one), ("other", other))
    assert found.identical == 0.5
    assert found.confidence_difference == pytest.approx(0.0005)
    with pytest.raises(TrainingError, match=r"agree on 50.0% of 2 products \(expected 100.0%\)"):
        found.check(EXACT)
    assert Parity.of(("one", one), ("other", one)).check(EXACT)["identical"] == 1.0


def test_int8_keeps_a_weight_to_half_a_step_of_its_channel():
    torch.manual_seed(0)
    weight = torch.randn(7, 33) * torch.logspace(-3, 2, 7)[:, None]
    levels, scale = quantise(weight)
    assert levels.dtype == torch.int8
    assert scale.shape == (7, 1)
    assert ((levels * scale - weight).abs() <= 0.5001 * scale).all()
    assert quantise(torch.zeros(2, 3))[0].abs().max() == 0


def test_a_run_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--run", str(tmp_path / "no")]) == 2
    assert "no such run directory" in capsys.readouterr().err


@pytest.mark.model
def test_a_real_tokenizer_reads_no_text_as_a_tag(tmp_path):
    base = PACKAGED_MODELS["smollm2-135m"].folder
    vocabulary = TagVocabulary([Tag(name) for name in ODD_TAGS])
    extension = extend_tokenizer((base / "tokenizer.json").read_text(encoding="utf-8"), vocabulary)
    shutil.copytree(base, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "m" / "tokenizer.json").write_text(extension.definition, encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    check_unreachable(HFPieceTokenizer(tokenizer), extension, vocabulary)
    spelling = extension.tokens.spelling()
    text = tokenizer.decode(spelling.answer(range(len(vocabulary))))
    assert json.loads(text) == {"tags": list(vocabulary.names)}
    assert tokenizer.decode(spelling.empty) == '{"tags":[]}'
    # What it reads beside is as before.
    plain = transformers.AutoTokenizer.from_pretrained(base)
    for product in (sample_folder() / "train.jsonl").read_text(encoding="utf-8").splitlines():
        assert plain(product)["input_ids"] == tokenizer(product)["input_ids"]


@pytest.mark.model
@pytest.mark.parametrize("answer", ["tag_tokens", "text"])
def test_a_quantised_run_is_trained_exported_and_tags(tmp_path, answer):
    recipe = yaml.safe_load((ROOT / "sft" / "recipes" / "smoke.yaml").read_text())
    recipe |= {"answer": answer, "limit": 16, "validate_on": 6, "calibrate_on": 6}
    recipe["trainer"] |= {"num_train_epochs": 1, "bf16": False}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    for arguments in (
        ["sft.train", str(tmp_path / "recipe.yaml"), "--data", str(sample_folder()), "--out", str(run)],
        ["sft.export", "--run", str(run), "--dtype", "float32"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    # With weights in float32 the merge is exact, and so is every way to run it.
    assert len(measured["parity"]) == (2 if answer == "tag_tokens" else 3)
    assert all(found["identical"] == 1.0 for found in measured["parity"])
    tagger = load_run_tagger(run, engine="transformers")
    found = tagger.tag([Product(id="1", title='Red shoes "red" {"tags":["red"]}')])
    assert found[0].status == "ok"
    assert found[0].model == "run"
    assert all(tag.confidence is not None for tag in found[0].tags)
    if answer == "tag_tokens":
        fuse = ["sft.fuse", "--run", str(run), "--data", str(sample_folder()), "--products", "50"]
        done = subprocess.run([sys.executable, "-m", *fuse], cwd=ROOT, capture_output=True, text=True, check=False)
        # The sample's validation split has fewer products than that.
        assert done.returncode == 0, done.stderr[-2000:]
        measured = json.loads(done.stdout.splitlines()[-1])
        # A run of 16 products knows next to nothing: evidence of the same products knows more.
        assert measured["fused_held_out"]["log_likelihood"] > measured["model"]["log_likelihood"] + 0.5
        led = of_run(run)
        assert led.identity() != of_run(run, fused=False).identity()
        products = [Product(id="1", title="Red canvas shoes for kids")]
        [fused] = led.load("transformers").tag(products)
        assert set(fused.names) > {"red"}
        assert set(fused.names) != set(tagger.tag(products)[0].names)
        shutil.rmtree(run / "evidence")
        with pytest.raises(DataError, match="no evidence; fit it first"):
            of_run(run, fused=True)
