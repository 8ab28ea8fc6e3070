"""`python -m eval.run` with taggers that need no library."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import eval.arms
import eval.run
from eval.predict import Contestant
from eval.run import main
from eval.store import read_products
from hangtag.tagging import Usage
from hangtag.vocabulary import TagVocabulary
from tests.eval_dataset import WordTagger, write_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "shop")


@pytest.fixture
def taggers(monkeypatch):
    """Taggers by kind of arm, instead of the real ones: functions of the vocabulary."""
    loaders = {"majority": WordTagger, "lexical": WordTagger}

    def load(loader, arm):
        tagger = loaders[arm.kind](loader._dataset.vocabulary)
        return Contestant(tagger, getattr(tagger, "usage", None))

    monkeypatch.setattr(eval.arms.ArmLoader, "load", load)
    return loaders


def evaluate(dataset, out, *options):
    code = main(
        ["--data", str(dataset), "--arms", "majority,lexical", "--out", str(out), "--resamples", "200", *options]
    )
    return code, json.loads((out / "results.json").read_text())


def test_an_evaluation_from_end_to_end(dataset, tmp_path, taggers, capsys):
    taggers["lexical"] = lambda vocabulary: WordTagger(vocabulary, unparsed={1, 2}, violations={3})
    code, results = evaluate(dataset, tmp_path / "out", "--baseline", "majority", "--perturb", "--rate", "3.6")
    assert code == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "shop: 40 test products."
    assert json.loads(printed[-1])["arms"] == ["majority", "lexical"]
    lexical = results["arms"]["lexical"]
    assert lexical["invalid"] == {
        "unparsed": 2, "failed": 0, "unknown": 1, "repeated": 0, "over_limit": 0, "answers_with_violations": 1
    }  # fmt: skip
    assert lexical["figures"]["validity"]["value"] == pytest.approx(37 / 40)
    assert lexical["figures"]["set_f1"]["low"] < lexical["figures"]["set_f1"]["value"]
    assert results["arms"]["majority"]["against"] is None
    against = lexical["against"]
    assert against["num_products"] == 40
    lost = lexical["figures"]["set_f1"]["value"] - results["arms"]["majority"]["figures"]["set_f1"]["value"]
    assert against["figures"]["set_f1"]["value"] == pytest.approx(lost)
    assert against["figures"]["set_f1"]["high"] <= 0
    assert against["figures"]["set_f1"]["p"] < 0.3
    assert lexical["robustness"]["upper_case"]["change"]["value"] < -0.5
    assert lexical["robustness"]["lost_description"]["change"]["value"] == 0
    assert lexical["robustness"]["lost_description"]["num_changed"] == 40
    assert lexical["efficiency"]["cost_per_1000"]["value"] == pytest.approx(
        1 / lexical["efficiency"]["products_per_s"]["value"]
    )
    assert "prompt_tokens" not in lexical["efficiency"]
    assert "hierarchical_f1" in lexical["figures"]
    assert results["provenance"]["versions"]["python"]
    for name in ("report.md", "report.html"):
        assert "lexical" in (tmp_path / "out" / name).read_text()


def test_figures_agree_with_a_count_by_hand(dataset, tmp_path, taggers):
    _, results = evaluate(dataset, tmp_path / "out")
    rows = [json.loads(line) for line in (dataset / "test.jsonl").read_text().splitlines()]
    vocabulary = TagVocabulary.from_path(dataset / "vocabulary.json")
    exact = 0
    for number, row in enumerate(rows):
        answer = {tag for tag in vocabulary.names if tag in row["title"].split()}
        if number % 4 == 0 and "red" in answer:
            answer = answer - {"red"} | {"blue"}
        exact += answer == set(row["tags"])
    assert results["arms"]["lexical"]["figures"]["exact_match"]["value"] == exact / 40


def test_language_model_arms_get_tokens_and_their_own_limit(dataset, tmp_path, taggers, monkeypatch):
    class Counting(WordTagger):
        def __init__(self, vocabulary):
            super().__init__(vocabulary)
            self.usage = Usage()

        def tag(self, products):
            self.usage.prompt_tokens += 10 * len(products)
            self.usage.output_tokens += 3 * len(products)
            return super().tag(products)

    taggers["http"] = Counting
    options = [
        "--endpoint",
        "http://127.0.0.1:9/v1",
        "--endpoint-model",
        "m",
        "--llm-limit",
        "12",
        "--limit",
        "20",
    ]
    options += ["--arms", "majority,http", "--baseline", "majority"]
    code, results = evaluate(dataset, tmp_path / "out", *options)
    assert code == 0
    assert results["arms"]["majority"]["num_products"] == 20
    assert results["arms"]["http"]["num_products"] == 12
    assert results["arms"]["http"]["against"]["num_products"] == 12
    assert results["arms"]["http"]["efficiency"]["prompt_tokens"]["value"] == 10
    assert results["arms"]["http"]["efficiency"]["output_tokens"]["value"] == 3
    assert not results["arms"]["http"]["is_reliable"]
    assert "a sample of 20 drawn with seed 0" in results["note"]
    assert "unreliable" in (tmp_path / "out" / "report.md").read_text()


def test_nothing_is_done_twice_and_rescoring_needs_no_tagger(dataset, tmp_path, taggers):
    calls = []
    taggers["lexical"] = taggers["majority"] = lambda vocabulary: WordTagger(vocabulary, calls=calls)
    _, first = evaluate(dataset, tmp_path / "out")
    assert len(calls) == 2
    _, again = evaluate(dataset, tmp_path / "out")
    assert len(calls) == 2
    assert again["arms"] == first["arms"]
    taggers.clear()
    (dataset / "test.jsonl").unlink()
    assert main(["--rescore", str(tmp_path / "out")]) == 0
    rescored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert rescored["arms"] == first["arms"]
    assert rescored["worst"] == first["worst"]


def test_other_settings_do_not_take_old_predictions(dataset, tmp_path, taggers):
    calls = []
    taggers["lexical"] = taggers["majority"] = lambda vocabulary: WordTagger(vocabulary, calls=calls)
    evaluate(dataset, tmp_path / "out", "--limit", "10")
    evaluate(dataset, tmp_path / "out", "--limit", "11")
    evaluate(dataset, tmp_path / "out", "--limit", "10", "--seed", "5")
    assert len(calls) == 6


def test_an_arm_that_dies_half_way_ends_alone_and_goes_on_later(dataset, tmp_path, taggers, capsys, monkeypatch):
    monkeypatch.setattr(eval.arms.Arm, "batch_size", 16)
    taggers["majority"] = lambda vocabulary: WordTagger(vocabulary, dies_after=2)
    code, results = evaluate(dataset, tmp_path / "out")
    assert code == 1
    assert list(results["arms"]) == ["lexical"]
    assert results["failed"] == {"majority": "RuntimeError: out of memory"}
    assert "arm majority failed: RuntimeError: out of memory" in capsys.readouterr().err
    assert "Arm majority failed" in (tmp_path / "out" / "report.html").read_text()
    healthy = WordTagger
    tagged = []
    taggers["majority"] = lambda vocabulary: healthy(vocabulary, calls=tagged)
    code, results = evaluate(dataset, tmp_path / "out")
    assert code == 0
    assert [len(batch) for batch in tagged] == [8]
    assert results["arms"]["majority"]["num_products"] == 40


def test_a_tagger_that_answers_out_of_order_fails(dataset, tmp_path, taggers):
    class Shuffled(WordTagger):
        def tag(self, products):
            return super().tag(products)[::-1]

    taggers["majority"] = Shuffled
    code, results = evaluate(dataset, tmp_path / "out")
    assert code == 1
    assert "in another order" in results["failed"]["majority"]


def test_no_texts_keeps_products_out_of_every_report(dataset, tmp_path, taggers):
    evaluate(dataset, tmp_path / "out", "--no-texts", "--perturb", "typos")
    for name in ("results.json", "report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "a fine thing" not in text
        assert "model 3" not in text
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["worst"]) == 20
    assert {product.text for product in read_products(tmp_path / "out").values()} == {""}
    assert all(set(row) == {"id", "arms"} for row in results["worst"])
    assert all(set(answer) == {"set_f1", "status"} for row in results["worst"] for answer in row["arms"].values())


def test_no_report_names_a_place_on_this_machine(dataset, tmp_path, taggers, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate(dataset, tmp_path / "out")
    for name in ("results.json", "report.md", "report.html"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


def test_product_text_cannot_break_out_of_the_report(tmp_path, taggers):
    dataset = write_dataset(tmp_path / "shop")
    rows = [json.loads(line) for line in (dataset / "test.jsonl").read_text().splitlines()]
    for row in rows:
        row["title"] = "<script>alert(1)</script> | x"
    (dataset / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    evaluate(dataset, tmp_path / "out")
    for name in ("report.md", "report.html"):
        assert "<script>" not in (tmp_path / "out" / name).read_text()


def test_chinese_and_other_products_are_told_apart(tmp_path, taggers):
    dataset = write_dataset(tmp_path / "shop", chinese=15)
    _, results = evaluate(dataset, tmp_path / "out")
    assert results["groups"]["products"]["chinese"] == 15
    figures = results["arms"]["lexical"]["figures"]
    whole = figures["set_f1"]["value"] * 40
    assert 15 * figures["chinese_set_f1"]["value"] + 25 * figures["english_set_f1"]["value"] == pytest.approx(
        whole
    )


def test_products_whose_tag_set_never_occurs_in_train(tmp_path, taggers):
    dataset = write_dataset(tmp_path / "shop")
    (dataset / "train.jsonl").write_text('{"id": "a", "title": "red coat", "tags": ["red", "coat"]}\n')
    _, results = evaluate(dataset, tmp_path / "out")
    rows = [json.loads(line) for line in (dataset / "test.jsonl").read_text().splitlines()]
    unseen = sum(set(row["tags"]) != {"red", "coat"} for row in rows)
    assert results["groups"]["products"]["unseen_set"] == unseen
    assert results["groups"]["tags"]["tail"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "bart"], "arm 'bart' is unknown; expected some of majority"),
        (["--arms", "linear:unconstrained"], "only an arm with a language model"),
        (["--arms", "majority,majority"], "stands twice"),
        (["--arms", "http"], "give an endpoint: --endpoint URL"),
        (["--arms", "qlora"], "give a fine-tuned run: --run DIR"),
        (["--endpoint", "http://x"], "belong together"),
        (["--limit", "0"], "`limit`"),
        (["--perturb", "smudges"], "`perturb.0`"),
        (["--run", "no/such/run"], "no such run directory"),
        (["--data", "no/such/folder"], "no such folder"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(dataset, tmp_path, taggers, capsys, options, message):
    assert main(["--data", str(dataset), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_dataset_without_test_is_refused(dataset, tmp_path, capsys):
    (dataset / "test.jsonl").unlink()
    assert main(["--data", str(dataset), "--out", str(tmp_path / "out")]) == 2
    assert "no test.jsonl" in capsys.readouterr().err


def test_gold_tags_that_the_vocabulary_lacks_are_listed_and_counted(dataset, tmp_path, taggers, capsys):
    rows = (dataset / "test.jsonl").read_text().replace('"coat"', '"cloak"')
    (dataset / "test.jsonl").write_text(rows)
    assert main(["--data", str(dataset), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    number = rows.count('"cloak"')
    assert f"lacks 1 gold tags: 'cloak' ({number} times)" in error
    code, results = evaluate(dataset, tmp_path / "out", "--allow-unknown-gold")
    assert code == 0
    assert results["arms"]["lexical"]["figures"]["micro_recall"]["value"] < 0.9


def test_a_run_of_another_vocabulary_is_refused(dataset, tmp_path, taggers, capsys):
    from hangtag.manifest import RunManifest

    run = tmp_path / "run"
    run.mkdir()
    other = TagVocabulary.from_json(["red", "blue"])
    other.save(run / "vocabulary.json")
    RunManifest(program="t", kind="bert", base_model="m", vocabulary=other.fingerprint).write(run)
    assert main(["--data", str(dataset), "--run", str(run), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    ours = TagVocabulary.from_path(dataset / "vocabulary.json").fingerprint
    assert other.fingerprint[:12] in error
    assert ours[:12] in error


def test_rescoring_a_folder_without_predictions_is_refused(tmp_path, capsys):
    assert main(["--rescore", str(tmp_path)]) == 2
    assert "expected a results folder" in capsys.readouterr().err
    assert main(["--rescore", str(tmp_path), "--limit", "3"]) == 2
    assert "got --limit" in capsys.readouterr().err


def test_a_second_evaluation_of_the_same_folder_is_refused(dataset, tmp_path, taggers, capsys):
    with eval.run._locked(tmp_path / "out"):
        assert main(["--data", str(dataset), "--arms", "majority", "--out", str(tmp_path / "out")]) == 2
    assert "another evaluation is writing there" in capsys.readouterr().err


SLOW = """
    import sys, time
    from pathlib import Path
    import eval.arms
    from eval.predict import Contestant
    from eval.run import main
    from tests.eval_dataset import WordTagger

    class Slow(WordTagger):
        def tag(self, products):
            with open(sys.argv[1], "a") as stream:
                stream.writelines(f"{product.id}\\n" for product in products)
            time.sleep(float(sys.argv[2]))
            return super().tag(products)

    eval.arms.Arm.batch_size = 2
    eval.arms.ArmLoader.load = lambda loader, arm: Contestant(Slow(loader._dataset.vocabulary))
    sys.exit(main(["--arms", "majority,lexical", "--perturb", "typos", "--resamples", "200", *sys.argv[3:]]))
"""


def test_kill_9_in_the_middle_of_an_arm(dataset, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(name, seconds):
        command = [sys.executable, str(script), str(tmp_path / f"{name}.log"), str(seconds)]
        command += ["--data", str(dataset), "--out", str(tmp_path / name)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def tagged(name):
        log = tmp_path / f"{name}.log"
        return log.read_text().split() if log.exists() else []

    whole = start("whole", 0)
    assert whole.wait(60) == 0, whole.communicate()
    kills = 0
    for fewest in (9, 61, 121):
        killed = start("killed", 0.05)
        while len(tagged("killed")) < fewest and killed.poll() is None:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        kills += killed.wait(10) == -signal.SIGKILL
        killed.communicate()
        assert not (tmp_path / "killed" / "results.json").exists()
    assert kills == 3
    # What a torn write leaves behind.
    torn = max((tmp_path / "killed" / "predictions").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    with torn.open("ab") as stream:
        stream.write(b'{"start": 1, "taggi')
    last = start("killed", 0)
    assert last.wait(60) == 0, last.communicate()
    for process in (whole, last):
        process.communicate()
    # At most the batch that was under way at each kill is done again.
    assert len(tagged("killed")) <= len(tagged("whole")) + 2 * kills
    assert sorted(set(tagged("killed"))) == sorted(set(tagged("whole")))
    a, b = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed"))
    for arm in ("majority", "lexical"):
        for part in ("figures", "against", "robustness", "reliability", "confused", "num_products"):
            assert a["arms"][arm][part] == b["arms"][arm][part]
    assert a["worst"] == b["worst"]


def test_every_recipe_is_accepted():
    from eval.settings import Evaluation
    from hangtag.config import load_recipe

    recipes = list((ROOT / "eval" / "recipes").rglob("*.yaml"))
    assert len(recipes) >= 2
    for recipe in recipes:
        load_recipe(recipe, Evaluation)
