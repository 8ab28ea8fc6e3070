from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main as bench
from hangtag.cli import main
from hangtag.sample import sample_folder
from hangtag.vocabulary import TagVocabulary
from serve import demo, generate

TRAIN = str(sample_folder() / "train.jsonl")
VOCABULARY = str(sample_folder() / "vocabulary.json")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (main, []),
        (main, ["tag"]),
        (main, ["vocabulary"]),
        (main, ["vocabulary", "build"]),
        (main, ["vocabulary", "check"]),
        (main, ["review"]),
        (main, ["review", "serve"]),
        (main, ["review", "export"]),
        (main, ["model"]),
        (main, ["model", "fetch"]),
        (main, ["model", "list"]),
        (generate.main, []),
        (demo.main, []),
        (bench, []),
        (bench, ["constraint"]),
        (bench, ["decode"]),
        (bench, ["catalogue"]),
        (bench, ["http"]),
        (bench, ["training"]),
    ],
)
def test_help_of_every_command(program, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program([*arguments, "--help"])
    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_vocabulary_build_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "v.json")
    assert main(["vocabulary", "build", TRAIN, "--out", out, "--base", VOCABULARY, "--limits"]) == 0
    document = json.loads(Path(out).read_text(encoding="utf-8"))
    assert len(document["tags"]) == 124
    assert document["facets"]["department"] == {"min": 1, "max": 1}
    assert main(["vocabulary", "check", out]) == 0
    assert "department: 4 tags, at least 1, at most 1 a product" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vocabulary", "check", "none.json"], "No such file"),
        (["vocabulary", "build", TRAIN, "--out", "/dev/null/v.json"], "cannot be written"),
        (["tag", "  ", "--vocabulary", VOCABULARY], "TEXT is empty"),
        (["tag", "cup", "--vocabulary", "none.txt"], "No such file"),
        (["tag", "cup", "--vocabulary", VOCABULARY, "--model", "./none"], "no such folder"),
        (["tag", "cup", "--vocabulary", VOCABULARY, "--shots", "2"], "need labelled examples"),
        (["tag", "cup", "--vocabulary", VOCABULARY, "--shots", "-1"], "expected at least 0"),
        (["tag", "--file", "none.jsonl", "--vocabulary", VOCABULARY], "no such file"),
        (["tag", "--file", TRAIN, "--map", "name", "--vocabulary", VOCABULARY], "expected FIELD=COLUMN"),
        (["model", "fetch", "gpt-5"], "not packaged"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_model_list_shows_licence_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("licence Apache-2.0") == 2
    assert "SmolLM2-135M-Instruct" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl", "o.jsonl", "--vocabulary", VOCABULARY], "no such file"),
        ([TRAIN, TRAIN, "--vocabulary", VOCABULARY], "a file; expected a folder"),
        ([TRAIN, "o", "--vocabulary", VOCABULARY, "--map", "title=name"], "no column 'name'"),
        ([TRAIN, "o"], "give --vocabulary F, or --run RUN"),
        ([TRAIN, "o", "--vocabulary", VOCABULARY, "--accept-at", "90"], "expected a confidence from 0 to 1"),
        ([TRAIN, "o", "--vocabulary", VOCABULARY, "--part-rows", "0"], "expected at least 1"),
        ([TRAIN, "o", "--vocabulary", VOCABULARY, "--keep", "tags"], "the output has a column of this name"),
        ([TRAIN, "o", "--vocabulary", VOCABULARY, "--run", "r"], "cannot be combined with --run"),
        (["-", "o", "--vocabulary", VOCABULARY, "--join", "j.csv"], "standard input can be read once only"),
    ],
)
def test_generate_refuses_before_it_loads_a_model(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_vocabulary_build_goes_on_and_reports_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        '{"title": "Cup", "tags": ["Red", "cup"]}',
        '{"title": ""}',
        '{"title": "Mug", "tags": ["red", "cup"]}',
    ]
    rows += ["broken", '{"title": "Bowl", "tags": ["red", "CUP"]}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "tags.json"
    assert main(["vocabulary", "build", str(tmp_path / "a.jsonl"), "--out", str(out), "--limits"]) == 0
    vocabulary = TagVocabulary.from_path(out)
    assert [(tag.tag, tag.count, tag.aliases) for tag in vocabulary] == [
        ("cup", 3, ("CUP",)),
        ("red", 3, ("Red",)),
    ]
    assert vocabulary.facets[""].max is None
    error = capsys.readouterr().err
    assert "2 rows are no products and were left out:\n  2: title and description" in error
    assert "became its aliases:\n  CUP of cup\n  Red of red\n" in error
