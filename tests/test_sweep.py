from __future__ import annotations

import json
from pathlib import Path

import yaml
from test_train import TINY
from tiny_model import make_tiny_model

from hangtag.config import load_recipe
from hangtag.sample import sample_folder
from sft.sweep import Sweep, main

RECIPES = Path(__file__).resolve().parents[1] / "sft" / "recipes"


def write_sweep(folder: Path, variants: dict) -> Path:
    base = TINY | {"model": str(make_tiny_model(folder / "base")), "method": "lora"}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": base, "variants": variants}, sort_keys=False))
    return path


def run(folder: Path, sweep: Path) -> tuple[int, dict]:
    out = folder / "out"
    code = main([str(sweep), "--data", str(sample_folder()), "--runs", str(folder / "runs"), "--out", str(out)])
    return code, json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else {}


def test_every_sweep_loads():
    found = sorted(RECIPES.glob("sweep_*.yaml"))
    assert len(found) >= 2
    for path in found:
        sweep = load_recipe(path, Sweep)
        assert all(sweep.recipe(name) for name in sweep.variants)


def test_variants_are_trained_once_and_compared_with_the_first(tmp_path):
    sweep = write_sweep(
        tmp_path, {"plain": {}, "same": {}, "fewer": {"limit": 8, "trainer": {"learning_rate": 0.1}}}
    )
    code, results = run(tmp_path, sweep)
    assert code == 0
    variants = results["variants"]
    assert [variant["num_train"] for variant in variants.values()] == [24, 24, 8]
    assert variants["fewer"]["recipe"]["trainer"]["num_train_epochs"] == 1
    assert variants["same"]["against_first"]["set_f1"]["value"] == 0
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


def test_a_wrong_variant_is_one_line(tmp_path, capsys):
    assert run(tmp_path, write_sweep(tmp_path, {"plain": {}, "odd": {"rnak": 3}}))[0] == 2
    assert "variant 'odd': options: unknown key `rnak`; did you mean `rank`?" in capsys.readouterr().err
