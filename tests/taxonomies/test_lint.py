from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hangtag import Tag, TagVocabulary
from hangtag.cli import main
from hangtag.taxonomies.lint import Finding, lint, long_spellings, near_duplicates, unused


def found(findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {finding.what: finding.cases for finding in findings}


def test_a_clean_vocabulary_has_no_findings() -> None:
    assert lint(TagVocabulary([Tag("red", aliases=("crimson",)), Tag("rose", parent="red")])) == []


def test_look_alikes_and_names_as_aliases() -> None:
    vocabulary = TagVocabulary(
        [Tag("ｆine"), Tag("fine"), Tag("A b"), Tag("A  b"), Tag("up", aliases=("FINE", "UP"))]
    )
    assert found(lint(vocabulary)) == {
        "tags that look the same (equal under NFKC)": ("'ｆine' = 'fine'", "'A b' = 'A  b'"),
        "aliases that are another tag's name": ("'FINE' of 'up'",),
    }


def test_deep_chains() -> None:
    chain = [Tag("1"), *(Tag(str(number), parent=str(number - 1)) for number in range(2, 10))]
    assert found(lint(TagVocabulary(chain))) == {"tags more than 7 levels deep": ("8 (8)", "9 (9)")}


def test_unused_tags_and_empty_branches() -> None:
    tags = [
        Tag("a"),
        Tag("b", parent="a"),
        Tag("c", parent="a"),
        Tag("d", parent="c"),
        Tag("e", parent="d"),
        Tag("f"),
    ]
    counts = {"b": 2, "f": 0, "new": 1}
    expected = {
        "empty branches (no product holds one of their tags)": ("c",),
        "tags that no product holds": ("a", "c", "d", "e", "f"),
        "labels that are not in the vocabulary": ("new",),
    }
    assert found(unused(TagVocabulary(tags), counts)) == expected
    counted = TagVocabulary([Tag("a", count=1), Tag("b", count=0)])
    assert found(lint(counted)) == {"tags that no product holds": ("b",)}


def test_long_spellings_and_near_duplicates() -> None:
    vocabulary = TagVocabulary([Tag("a" * 40), Tag("b" * 41), Tag("c")])
    assert found(long_spellings(vocabulary, lambda names: map(len, names))) == {
        "tags of more than 40 tokens": ("b" * 41 + " (41)",)
    }
    positions = np.array([[0, 2], [1, 0], [2, 0]])
    cosines = np.array([[1, 0.97], [1, 0.5], [1, 0.97]])
    assert found(near_duplicates(vocabulary, positions, cosines)) == {
        "near-duplicates by meaning": ("a" * 40 + " ~ c (0.97)",)
    }


def test_check_prints_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(json.dumps(["red", {"tag": "blue", "aliases": ["Red"]}, "green"]), encoding="utf-8")
    for split in ("train", "validation", "test"):
        row = {"title": "x", "tags": ["red", "blue" if split == "test" else "red"]}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main(["vocabulary", "check", str(vocabulary), "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:] == [
        "  aliases that are another tag's name: 1: 'Red' of 'blue'",
        "  tags that no product holds: 1: green",
    ]
    assert main(["vocabulary", "check", str(vocabulary), "--data", str(tmp_path / "none")]) == 2


def test_near_duplicates_without_the_encoder_name_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path))
    (tmp_path / "t.txt").write_text("red\n", encoding="utf-8")
    assert main(["vocabulary", "check", str(tmp_path / "t.txt"), "--near-duplicates"]) == 2
    assert capsys.readouterr().err.endswith("run: hangtag model fetch minilm-l6\n")


@pytest.mark.model
def test_models_find_long_and_near_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.txt"
    path.write_text("grey\ngray\nred\n" + "zq " * 30 + "z\n", encoding="utf-8")
    assert main(["vocabulary", "check", str(path), "--near-duplicates", "--model", "smollm2-135m"]) == 0
    shown = capsys.readouterr().out
    assert "tags of more than 40 tokens: 1: zq zq" in shown
    assert "near-duplicates by meaning: 1: grey ~ gray" in shown
