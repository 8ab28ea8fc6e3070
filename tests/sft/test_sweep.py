from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny_model import make_tiny_model
from tiny_training import TINY

import sft.sweep
from hangtag.config import load_recipe
from hangtag.sample import sample_folder
from sft.sweep import Sweep, main

pytestmark = pytest.mark.train

RECIPES = Path(__file__).resolve().parents[2] / "sft" / "recipes"


def write_sweep(folder: Path, variants: dict, **more: dict) -> Path:
    base = TINY | {"model": str(make_tiny_model(folder / "base")), "method": "lora"}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": base, "variants": variants, **more}, sort_keys=False))
    return path


def run(folder: Path, sweep: Path) -> tuple[int, dict]:
    out = folder / "out"
    code = main([str(sweep), "--data", str(sample_folder()), "--runs", str(folder / "runs"), "--out", str(out)])
    return code, json.loads((out / "sweep.json").read_text()) if (out / "sweep.json").exists() else {}


def test_every_sweep_loads():
    found = sorted(RECIPES.glob("sweep_*.yaml"))
    assert len(found) >= 2
    for path in found:
        sweep = load_recipe(path, Sweep)
        assert all(sweep.variant(name) for name in sweep.variants)


def test_variants_are_trained_once_and_compared_with_the_first(tmp_path):
    sweep = write_sweep(
        tmp_path, {"plain": {}, "same": {}, "fewer": {"limit": 8, "trainer": {"learning_rate": 0.1}}}
    )
    code, results = run(tmp_path, sweep)
    assert code == 0
    variants = results["variants"]
    assert [variant["num_train"] for variant in variants.values()] == [24, 24, 8]
    assert variants["fewer"]["recipe"]["trainer"]["num_train_epochs"] == 1
    assert variants["plain"]["against"] is None
    assert variants["same"]["against"]["variant"] == variants["fewer"]["against"]["variant"] == "plain"
    assert variants["same"]["against"]["set_f1"]["value"] == 0
    assert results["num_products"] == 10
    assert "| fewer | 8 |" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "curve.svg").is_file()
    before = (tmp_path / "runs" / "plain" / "manifest.json").stat().st_mtime_ns
    assert run(tmp_path, sweep)[0] == 0
    assert (tmp_path / "runs" / "plain" / "manifest.json").stat().st_mtime_ns == before


def test_a_variant_that_fails_leaves_the_others(tmp_path):
    sweep = write_sweep(tmp_path, {"plain": {}, "nan": {"trainer": {"learning_rate": 1e30, "max_grad_norm": 0.0}}})
    code, results = run(tmp_path, sweep)
    assert code == 1
    assert list(results["variants"]) == ["plain"]


def test_what_is_done_is_written_before_the_next_variant(tmp_path, monkeypatch):
    written = []

    def train(name, *arguments):
        path = tmp_path / "out" / "sweep.json"
        written.append(list(json.loads(path.read_text())["variants"]) if path.exists() else [])
        return real(name, *arguments)

    real = sft.sweep._train
    monkeypatch.setattr(sft.sweep, "_train", train)
    assert run(tmp_path, write_sweep(tmp_path, {"plain": {}, "linear": {"program": "linear"}}))[0] == 0
    assert written == [[], ["plain"]]


def test_a_wrong_variant_is_one_line(tmp_path, capsys):
    assert run(tmp_path, write_sweep(tmp_path, {"plain": {}, "odd": {"rnak": 3}}))[0] == 2
    assert "variant 'odd': options: unknown key `rnak`; did you mean `rank`?" in capsys.readouterr().err


def test_the_linear_tagger_stands_beside_on_the_same_products(tmp_path):
    sweep = write_sweep(
        tmp_path,
        {
            "8": {"limit": 8},
            "linear-8": {"program": "linear", "limit": 8},
            "linear-all": {"program": "linear", "against": "linear-8"},
        },
    )
    code, results = run(tmp_path, sweep)
    assert code == 0
    variants = results["variants"]
    assert [variant["program"] for variant in variants.values()] == ["language_model", "linear", "linear"]
    assert variants["linear-8"]["num_train"] == 8 < variants["linear-all"]["num_train"]
    compared = variants["linear-all"]["against"]
    assert compared["variant"] == "linear-8"
    gain = variants["linear-all"]["set_f1"]["value"] - variants["linear-8"]["set_f1"]["value"]
    assert compared["set_f1"]["value"] == pytest.approx(gain)
    assert "| linear-8 | " in (tmp_path / "out" / "table.md").read_text()
    assert "linear" in (tmp_path / "out" / "curve.svg").read_text()
    before = (tmp_path / "runs" / "linear-all" / "metrics.json").stat().st_mtime_ns
    assert run(tmp_path, sweep)[0] == 0
    assert (tmp_path / "runs" / "linear-all" / "metrics.json").stat().st_mtime_ns == before


def test_a_program_that_is_unknown_is_refused(tmp_path, capsys):
    assert run(tmp_path, write_sweep(tmp_path, {"a": {"program": "svm"}}))[0] == 2
    assert "expected one of language_model, bert, linear" in capsys.readouterr().err


def test_a_comparison_with_a_variant_that_is_not_above_is_refused(tmp_path, capsys):
    variants = {"plain": {}, "linear": {"program": "linear", "against": "later"}, "later": {}}
    assert run(tmp_path, write_sweep(tmp_path, variants))[0] == 2
    assert "variant 'linear': against 'later'; expected one above it: plain" in capsys.readouterr().err


@pytest.mark.model
def test_bert_stands_beside_on_the_same_products(tmp_path):
    settings = {"limit": 24, "max_length": 16, "trainer": {"num_train_epochs": 1, "bf16": False}}
    sweep = write_sweep(tmp_path, {"few": {"limit": 8}, "bert": {"program": "bert"}}, bert=settings)
    code, results = run(tmp_path, sweep)
    assert code == 0
    assert results["variants"]["bert"]["num_train"] == 24


def test_a_run_that_was_killed_before_its_manifest_is_not_complete(tmp_path):
    sweep = write_sweep(tmp_path, {"plain": {}})
    assert run(tmp_path, sweep)[0] == 0
    manifest = tmp_path / "runs" / "plain" / "manifest.json"
    manifest.unlink()
    assert run(tmp_path, sweep)[0] == 0
    assert manifest.is_file()
