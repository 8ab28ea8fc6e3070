"""`python -m eval.compare` on evaluations whose difference is known."""

import json
import shutil

import pytest

import eval.arms
from eval.compare import main
from eval.predict import Contestant
from eval.run import main as run
from tests.eval_dataset import WordTagger, write_dataset


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "shop", num_test=120)

    def evaluate(name, *options, **tagger):
        monkeypatch.setattr(
            eval.arms.ArmLoader,
            "load",
            lambda loader, arm: Contestant(WordTagger(loader._dataset.vocabulary, **tagger)),
        )
        out = tmp_path / name
        run(["--data", str(dataset), "--arms", "majority", "--out", str(out), "--resamples", "300", *options])
        return out / "results.json"

    return evaluate


def compare(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_same_state_has_not_moved(evaluate, capsys):
    code, out, _ = compare(capsys, evaluate("a"), evaluate("b"))
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == {"moved": 0, "regressions": []}


def test_a_loss_beyond_the_margin_is_a_regression(evaluate, capsys):
    old, new = evaluate("a"), evaluate("b", unparsed=set(range(1, 13)))
    code, out, _ = compare(capsys, old, new)
    assert code == 1
    assert "majority  validity: 1.0000 -> 0.9000" in out
    assert "paired" in out
    regressions = json.loads(out.splitlines()[-1])["regressions"]
    assert any(line.startswith("majority set_f1 -0.") for line in regressions)
    assert compare(capsys, new, old)[0] == 0
    assert compare(capsys, old, new, "--margin", "0.5")[0] == 0
    assert compare(capsys, old, new, "--figures", "calibration_error")[0] == 0


def test_without_predictions_the_intervals_decide(evaluate, capsys):
    old, new = evaluate("a"), evaluate("b", unparsed=set(range(1, 60)))
    shutil.rmtree(old.parent / "predictions")
    code, out, _ = compare(capsys, old, new)
    assert code == 1
    assert "intervals" in out
    assert "paired" not in out


def test_a_small_loss_within_noise_is_none(evaluate, capsys):
    old, new = evaluate("a"), evaluate("b", unparsed={1})
    shutil.rmtree(old.parent / "predictions")
    assert compare(capsys, old, new, "--margin", "0")[0] == 0


def test_predictions_of_other_samples_are_compared_on_the_products_of_both(evaluate, capsys):
    code, out, _ = compare(capsys, evaluate("a"), evaluate("b", "--limit", "50"))
    assert code == 0
    assert json.loads(out.splitlines()[-1])["moved"] == 0


def test_an_arm_that_is_gone_is_a_regression(evaluate, capsys):
    old, new = evaluate("a"), evaluate("b", dies_after=0)
    code, out, _ = compare(capsys, old, new)
    assert code == 1
    assert "majority is gone" in out


def test_other_data_are_refused(evaluate, tmp_path, capsys):
    old = evaluate("a")
    changed = json.loads(old.read_text())
    changed["dataset"]["digest"] = "f" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(changed))
    code, _, error = compare(capsys, old, other)
    assert code == 2
    assert "ffffffffffff" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "bart"], "arm 'bart' is in neither file"),
        (["--figures", "f7"], "figure 'f7' is in neither file"),
        (["--margin", "-1"], "expected a number from 0 on"),
        (["--margin", "nan"], "expected a number from 0 on"),
    ],
)
def test_misuse(evaluate, capsys, options, message):
    old = evaluate("a")
    code, _, error = compare(capsys, old, old, *options)
    assert code == 2
    assert message in error
