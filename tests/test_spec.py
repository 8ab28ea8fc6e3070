"""The one description of a tagger: what decides its identity, and that identities of 0.1.0 still stand.

`tests/data/output_0_1_0` was written by hangtag 0.1.0: `out` is a catalogue run without a model, and
`identities.json` holds for some command lines the digest of what decides a tagging.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest

from hangtag import Product, TagVocabulary
from hangtag.bulk.keys import context_digest
from hangtag.config import load_recipe
from hangtag.errors import HangtagError
from hangtag.evidence.lexical import LexicalSource
from hangtag.loading import BaselineName, split_examples
from hangtag.spec import Endpoint, Examples, Prompted, TaggerSpec
from hangtag.tagger_options import TaggerOptions
from serve import catalogue_tagger, generate

OLD = Path(__file__).parent / "data" / "output_0_1_0"
IDENTITIES: dict[str, Any] = json.loads((OLD / "identities.json").read_text())


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_are_those_of_the_first_release(shop: Path, name: str) -> None:
    options = IDENTITIES[name]["options"]
    if not {"--endpoint", "--baseline", "--engine"} & {*options}:
        # The first release knew no evidence; what it leads is tagged anew.
        options = [*options, "--evidence", "none"]
    arguments = generate.parser().parse_args(["in", "out", *options])
    identity = catalogue_tagger.described(arguments).spec.identity()
    assert context_digest(identity) == IDENTITIES[name]["context"]


def test_nothing_of_an_output_of_the_first_release_is_tagged_again(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["catalogue.jsonl", "out", "--vocabulary", "tags.json", "--engine", "null", "--part-rows", "5"]
    assert generate.main([*command, "--quiet"]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["tagged_now"], summary["error"]) == (12, 0, 1)


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"max_tags": 2}, {"max_tags": 3}),
        ({}, {"min_tags": 1}),
        ({}, {"with_parents": True}),
        ({}, {"decoding": "free"}),
        ({}, {"max_tokens": 100}),
        ({}, {"evidence": "none"}),
        ({}, {"evidence": Path("weights.json")}),
        ({}, {"prompt": Path("mine.jinja")}),
        ({"prompt": Path("mine.jinja")}, {"prompt": Path("changed.jinja")}),
        ({}, {"vocabulary": Path("limited.json")}),
        # They set the most tags of an answer even where none stands in the prompt.
        ({"endpoint": "http://x/v1"}, {"endpoint": "http://x/v1", "examples": Path("labelled.jsonl"), "shots": 0}),
        ({"endpoint": "http://x/v1"}, {"endpoint": "http://x/v1", "model": "other"}),
    ],
)
def test_identity_changes_with_what_decides_a_tagging(
    shop: Path, options: dict[str, Any], other: dict[str, Any]
) -> None:
    (shop / "mine.jinja").write_text("{{ product.title }}")
    weights = {"weights": {f"lexical.{column}": 1.0 for column in LexicalSource.columns}}
    (shop / "weights.json").write_text(json.dumps(weights))
    (shop / "changed.jinja").write_text("{{ product.title }}!")
    (shop / "limited.json").write_text('{"tags": ["red", "blue", "cup", "shoes"], "facets": {"": {"max": 1}}}')
    before, after = (
        TaggerOptions(**{"vocabulary": Path("tags.json"), "model": "model"} | said).read().identity()
        for said in (options, other)
    )
    assert before != after
    assert json.loads(json.dumps(after)) == after


def test_identity_of_an_endpoint_changes_with_the_default_template(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TaggerSpec(TagVocabulary.from_json(["red"]), Endpoint("http://x/v1", "m"))
    before = spec.identity()
    (shop / "tag_v2.jinja").write_text("{{ product.title }}")
    monkeypatch.setattr("hangtag.spec.default_template", lambda shots: shop / "tag_v2.jinja")
    assert spec.identity() != before


def test_a_description_is_said_in_yaml_too_and_travels_to_workers(shop: Path) -> None:
    (shop / "tagger.yaml").write_text(
        "model: model\nvocabulary: tags.json\nexamples: labelled.jsonl\nshots: 0\nmax_tags: 2\n"
    )
    spec = load_recipe("tagger.yaml", TaggerOptions).read()
    assert isinstance(spec.source, Prompted)
    assert (spec.name, spec.source.limits.max_tags, len(spec.source.examples.products)) == ("model", 2, 3)
    assert pickle.loads(pickle.dumps(spec)).identity() == spec.identity()


def test_limits_come_from_the_examples(shop: Path) -> None:
    source = TaggerOptions(vocabulary=Path("tags.json"), examples=Path("labelled.jsonl")).read().source
    assert isinstance(source, Prompted)
    assert (source.shots, source.limits.max_tags) == (3, 3)
    assert source.examples == Examples.read("labelled.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the tags are missing"),
        ({"vocabulary": Path("tags.json"), "shots": -1}, "--shots -1: expected at least 0"),
        ({"vocabulary": Path("tags.json"), "max_tags": 0}, "--max-tags 0: expected at least 1"),
        ({"run": Path("r"), "shots": 2}, "--shots cannot be combined with --run"),
        (
            {"vocabulary": Path("tags.json"), "endpoint": "http://x", "min_tags": 1},
            "--min-tags cannot be combined with --endpoint",
        ),
        (
            {"vocabulary": Path("tags.json"), "baseline": "lexical", "max_tags": 2},
            "--max-tags cannot be combined with --baseline lexical",
        ),
        ({"vocabulary": Path("tags.json"), "baseline": "linear"}, "got 0, expected two or more; give --examples"),
        ({"run": Path("r"), "baseline": "linear"}, "--baseline cannot be combined with --run"),
        ({"vocabulary": Path("few.json"), "examples": Path("labelled.jsonl")}, "not in the vocabulary"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(
    shop: Path, options: dict[str, Any], message: str
) -> None:
    (shop / "few.json").write_text('["red"]')
    with pytest.raises(HangtagError, match=message) as refused:
        TaggerOptions(**options).read()
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", get_args(BaselineName))
def test_a_baseline_tags_a_catalogue_without_a_model(
    shop: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    rows = [("Red cup", ["red", "cup"]), ("Blue shoes", ["blue", "shoes"]), ("Blue cup", ["blue", "cup"])]
    labelled = [{"id": f"l{n}", "title": f"{title} {n}", "tags": tags} for n in range(8) for title, tags in rows]
    (shop / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (shop / "new.jsonl").write_text("".join(json.dumps({"id": t, "title": t}) + "\n" for t, _ in rows))
    command = ["new.jsonl", "new", "--vocabulary", "tags.json", "--baseline", name, "--quiet"]
    if name != "lexical":
        command += ["--examples", "many.jsonl"]
    assert generate.main(command) == 0
    assert json.loads(capsys.readouterr().out)["tagged_now"] == 3
    taggings = [row for file in (shop / "new").glob("parts-0001/*") for row in pq.read_table(file).to_pylist()]
    assert {row["model"] for row in taggings} == {name}
    if name != "majority":
        found = {row["id"]: {tag["tag"] for tag in row["tags"]} for row in taggings}
        assert found == {title: set(tags) for title, tags in rows}
    assert generate.main(command) == 0
    assert json.loads(capsys.readouterr().out)["tagged_now"] == 0


def test_one_example_in_five_is_for_validation_whatever_their_order() -> None:
    products = [Product(id=str(n), title=f"Cup {n}") for n in range(11)]
    train, validation = split_examples(products)
    assert (len(train), len(validation)) == (9, 2)
    assert split_examples(products[::-1]) == (train, validation)
    assert sorted(int(product.id) for product in train + validation) == list(range(11))
    assert [len(part) for part in split_examples(products[:2])] == [1, 1]


def test_examples_come_from_wherever_a_catalogue_is_read(shop: Path) -> None:
    by_path = TaggerOptions(vocabulary=Path("tags.json"), examples="labelled.jsonl").read().source
    by_uri = TaggerOptions(vocabulary=Path("tags.json"), examples=f"file://{shop}/labelled.jsonl").read().source
    assert isinstance(by_path, Prompted)
    assert isinstance(by_uri, Prompted)
    assert by_uri.examples.products == by_path.examples.products
    assert by_uri.examples.sha256 is not None
    command = ["tag", "Red cup", "--vocabulary", "tags.json", "--baseline", "nearest", "--examples", "-", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hangtag.cli", *command],
        input=(shop / "labelled.jsonl").read_bytes(),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["model"] == "nearest"


def test_the_null_engine_takes_the_place_of_a_prompted_model_only(shop: Path) -> None:
    prompted = TaggerOptions(vocabulary=Path("tags.json"))
    assert catalogue_tagger.read_spec(prompted, "null").name == "null"
    lexical = TaggerOptions(vocabulary=Path("tags.json"), baseline="lexical")
    assert catalogue_tagger.read_spec(lexical, "null").name == "lexical"
