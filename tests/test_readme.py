"""The commands of README and docs are those of the programs, their figures those of the committed files."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIGURES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
COMMAND = re.compile(r"^ *\.venv/bin/(?:(hangtag)|python -m ([\w.]+)) ?(.*?)(?:\s+#.*)?$", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        for match in COMMAND.finditer(document.read_text(encoding="utf-8")):
            found.append((match[2] or "hangtag.cli", match[3]))
    return sorted(set(found))


def shown(document: Path, mark: str) -> str:
    """Return the document's text on one line; skip where README, which may leave figures out, lacks `mark`."""
    text = " ".join(document.read_text(encoding="utf-8").split())
    if document.name == "README.md" and mark not in text:
        pytest.skip("README.md leaves these figures to docs/results.md")
    return text


def test_there_are_commands() -> None:
    assert len(commands()) >= 6
    quickstart = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert len(COMMAND.findall(quickstart)) == quickstart.count(".venv/bin/") >= 8


def accepted(module: str, arguments: list[str]) -> bool:
    """Whether a program knows all options; run in an empty folder, it has to miss something then."""
    program = importlib.import_module(module)
    if module == "serve.server" and program.parse_arguments(arguments)[1]:
        # It hands what it does not know on to vLLM.
        return False
    try:
        code = program.main(arguments)
    except SystemExit:
        # How argparse ends a command that it does not understand.
        return False
    assert code == 2
    return True


@pytest.mark.parametrize(("module", "arguments"), commands())
def test_options_are_accepted(
    module: str,
    arguments: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an empty folder a command ends with one line that names what is missing of its arguments."""
    if not arguments:
        pytest.skip("a command without options; run by the program's own tests")
    monkeypatch.chdir(tmp_path)
    # Unit tests open no socket, not even to see whether a port is free.
    monkeypatch.setattr("serve.server.free_port", lambda *_: 0)
    words = shlex.split(arguments)
    assert accepted(module, words)
    last = capsys.readouterr().err.splitlines()[-1]
    assert any(word in last for word in words if not word.startswith("-")), last


@pytest.mark.parametrize("module", sorted({module for module, _ in commands()}))
def test_an_unknown_option_is_seen(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = next(arguments for name, arguments in commands() if name == module and arguments)
    assert not accepted(module, [*shlex.split(arguments), "--no-such-option"])


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"(?:`|^ {4})make ([a-z]+)", text, re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"


@pytest.mark.parametrize("document", FIGURES, ids=lambda path: path.name)
def test_decoding_figures_are_those_of_the_benchmark(document: Path) -> None:
    """The tables say what the committed files say."""
    results = ROOT / "eval" / "results"
    text = shown(document, "bench_decode_hm_10k.json")
    for file in ("bench_decode_hm", "bench_decode_finetuned", "bench_decode_hm_10k"):
        document = json.loads((results / f"{file}.json").read_text(encoding="utf-8"))
        for name, figures in document["contestants"].items():
            row = (
                f"| {name} | {figures['products_per_s']:.2f} | {figures['output_tokens_per_product']:.1f} "
                f"| {figures['incorrect']} of {figures['answers']} |"
            )
            if file.endswith("10k"):
                row = (
                    f"| {name} | {figures['products_per_s_first']:.2f} | {figures['products_per_s']:.2f} "
                    f"| {figures['incorrect']} of {figures['answers']} |"
                )
            assert row in text
    sampled = json.loads((results / "bench_decode_sampled.json").read_text(encoding="utf-8"))
    assert sampled["contestants"]["set"]["answers"] == 10_000
    assert sampled["contestants"]["set"]["incorrect"] == sampled["contestants"]["set"]["unclosed"] == 0


@pytest.mark.parametrize("document", FIGURES, ids=lambda path: path.name)
def test_gains_over_bert_are_those_of_the_reports(document: Path) -> None:
    """What is said in words is what the committed evaluations say."""
    text = shown(document, "Against BERT")
    for dataset, figure in (("hm", "exact_match"), ("hm", "set_f1"), ("myntra", "exact_match")):
        path = ROOT / "eval" / "results" / dataset / "results.json"
        against = json.loads(path.read_text(encoding="utf-8"))["arms"]["full"]["against"]
        assert against["baseline"] == "bert"
        gain = against["figures"][figure]
        name = {"exact_match": "exact match", "set_f1": "set-F1"}[figure]
        assert f"{gain['value']:.3f} [{gain['low']:.3f}, {gain['high']:.3f}] of {name}" in text
    level = json.loads((ROOT / "eval" / "results" / "myntra" / "results.json").read_text(encoding="utf-8"))
    gain = level["arms"]["full"]["against"]["figures"]["set_f1"]
    assert gain["low"] < 0 < gain["high"]
    assert "while set-F1 is level" in text


def test_the_small_table_is_that_of_the_reports() -> None:
    """The README's few figures are those of the files beside them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = ROOT / "eval" / "results"

    def figures(folder: str, arm: str, *names: str) -> list[str]:
        document = json.loads((results / folder / "results.json").read_text(encoding="utf-8"))
        return [f"{document['arms'][arm]['figures'][name]['value']:.3f}" for name in names]

    for folder, products in (("hm", "1,930"), ("myntra", "1,409")):
        exact, set_f1 = figures(folder, "full", "exact_match", "set_f1")
        bert = ", ".join(figures(folder, "bert", "exact_match", "set_f1"))
        assert f"{products} test products | {exact} exact match, {set_f1} set-F1 | BERT {bert} |" in text
    [fused], [words], [alone] = (
        figures("evidence_sample", arm, "set_f1") for arm in ("fused_zero_shot", "lexical", "zero_shot")
    )
    assert f"{fused} set-F1 | words found {words}, the model alone {alone} |" in text
    decode = json.loads((results / "bench_decode_hm.json").read_text(encoding="utf-8"))["contestants"]
    wrong = {name: decode[name]["incorrect"] for name in ("set", "xgrammar", "guidance")}
    assert f"| {wrong['set']} of {decode['set']['answers']} | xgrammar {wrong['xgrammar']}" in text
