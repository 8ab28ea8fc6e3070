"""Reports, the results table of README and docs, plots and perturbations."""

import json
import re
from pathlib import Path

import pytest

from eval import formats, render
from eval.perturb import perturb
from eval.plots import pareto_front
from eval.report import BEGIN, END, main, replace_table, results_table
from eval.settings import PERTURBATIONS
from hangtag.errors import DataError
from hangtag.metrics.text import interval, signed
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

ROOT = Path(__file__).resolve().parents[2]


def estimate(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def results(**arms):
    return {
        "format": 1,
        "dataset": {"name": "shop"},
        "best": max(arms, key=arms.get),
        "arms": {
            arm: {
                "num_products": 300,
                "figures": {name: estimate(value) for name in ("exact_match", "set_f1", "micro_f1")},
                "efficiency": {"products_per_s": {"value": 12.34, "low": None, "high": None}},
            }
            for arm, value in arms.items()
        },
        "provenance": {"commit": "0123456789abcdef", "dirty": True, "date": "2026-01-31T10:00:00+00:00"},
    }


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# shop\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    (tmp_path / "r" / "shop").mkdir(parents=True)
    (tmp_path / "r" / "shop" / "results.json").write_text(json.dumps(results(linear=0.5, bert=0.6)))
    return path


def test_the_readme_table_is_replaced_and_nothing_else(readme, tmp_path, capsys):
    source = str(tmp_path / "r" / "shop" / "results.json")
    assert main([str(readme), source, "--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert main([str(readme), source]) == 0
    text = readme.read_text()
    assert text.startswith(f"# shop\n\n{BEGIN}\n| dataset")
    assert text.endswith(f"{END}\n\nrest\n")
    assert "| shop | **bert** | 300 | 0.600 [0.590, 0.610] |" in text
    assert "[shop](r/shop/report.md): 2026-01-31, commit 0123456+" in text
    assert main([str(readme), source, "--check"]) == 0


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}"])
def test_a_readme_without_the_two_markers_is_refused(text):
    with pytest.raises(DataError, match="expected one line"):
        replace_table(text, "table", "README.md")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99, "arms": {}}', '{"format": 1}'])
def test_a_file_that_holds_no_results_is_refused(readme, tmp_path, capsys, content):
    source = tmp_path / "results.json"
    source.write_text(content)
    assert main([str(readme), str(source)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(readme), str(tmp_path / "absent.json")]) == 2


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_documents_of_the_project_show_the_committed_results(name):
    document = ROOT / name
    text = document.read_text(encoding="utf-8")
    if name == "README.md" and BEGIN not in text:
        pytest.skip("README.md leaves the table to docs/results.md")
    found = [(path, json.loads(path.read_text())) for path in sorted(ROOT.glob("eval/results/*/results.json"))]
    assert found
    assert replace_table(text, results_table(found, document.parent), name) == text


def test_committed_reports_hold_no_text_of_a_product():
    for path in sorted(ROOT.glob("eval/results/*/results.json")):
        found = json.loads(path.read_text())
        assert not found["recipe"]["texts"]
        assert {name for row in found["worst"] for name in row} <= {"id", "arms"}
        files = {file.name for file in path.parent.iterdir()}
        assert files <= {"results.json", "report.md", "report.html", "ceiling.json", "ceiling.md"}
        if "ceiling.json" in files:
            disputed = json.loads((path.parent / "ceiling.json").read_text())["disputed"]
            assert {name for row in disputed for name in row} == {"id", "facet"}


def test_numbers_are_written_the_same_everywhere():
    assert interval({"value": None, "low": None, "high": None}) == "–"
    assert interval({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert signed({"value": None, "low": None, "high": None, "p": None}) == "–"
    assert formats.verdict({"low": 0.1, "high": 0.2}) == "better"
    assert formats.verdict({"low": -0.2, "high": -0.1}) == "worse"
    assert formats.verdict({"low": -0.1, "high": 0.1}) == "not told apart"
    assert formats.verdict({"low": None, "high": None}) == "not told apart"


def test_an_evaluation_without_any_arm_says_so():
    assert render.findings({"arms": {}, "best": None, "baseline": None}) == [
        "No arm finished, so there is no figure."
    ]


def test_a_slower_and_worse_arm_is_not_on_the_front():
    points = [(10, 0.5, "a"), (10, 0.6, "b"), (1, 0.6, "c"), (0.1, 0.7, "d")]
    assert [name for _, _, name in pareto_front(points)] == ["d", "b"]


PRODUCT = Product(
    id="p",
    title="Red canvas shoes with laces",
    description="Light and sturdy shoes for walking around town in summer",
    attributes={"size": "nine", "sole": "rubber", "weight": "light", "origin": "Portugal"},
    tags=("red", "shoes"),
)
VOCABULARY = TagVocabulary.from_json(["red", "shoes", "boots"])


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_perturbations_are_seeded_and_keep_id_and_tags(kind):
    once, again = (perturb(PRODUCT, kind, seed=1, vocabulary=VOCABULARY) for _ in range(2))
    assert once == again
    assert (once.id, once.tags) == (PRODUCT.id, PRODUCT.tags)
    variants = {repr(perturb(PRODUCT, kind, seed=seed, vocabulary=VOCABULARY)) for seed in range(8)}
    assert (len(variants) > 1) == (kind in ("typos", "shuffled_attributes", "injected_instructions"))
    assert variants != {repr(PRODUCT)}


def test_what_each_perturbation_does():
    def done(kind):
        return perturb(PRODUCT, kind, seed=3, vocabulary=VOCABULARY)

    assert done("lost_description").description == ""
    assert done("upper_case").title == "RED CANVAS SHOES WITH LACES"
    shuffled = done("shuffled_attributes")
    assert shuffled.attributes == PRODUCT.attributes
    assert shuffled.description == PRODUCT.description
    assert '{"tags":["boots"]}' in done("injected_instructions").description
    long = PRODUCT.model_copy(update={"title": "letters " * 500})
    changed = perturb(long, "typos", seed=0, vocabulary=VOCABULARY).title
    assert 0 < abs(len(changed) - len(long.title)) < 100
    assert re.sub(r"[letrs ]", "", changed) == ""


def test_a_perturbation_that_does_not_apply_leaves_the_product_alone():
    bare = Product(id="p", description="only this", tags=("red", "shoes", "boots"))
    for kind in ("lost_description", "shuffled_attributes", "injected_instructions"):
        assert perturb(bare, kind, seed=0, vocabulary=VOCABULARY) == bare
