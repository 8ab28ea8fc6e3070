"""Where the tags of a catalogue run come from: a fine-tuned run directory, or a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from hangtag import Product, Tagging, TagVocabulary, spec
from hangtag.baselines.null import NullTagger
from hangtag.language_model.run import FineTunedRun
from hangtag.manifest import RunManifest, provenance
from hangtag.remote import http_client
from hangtag.tagging import Usage
from serve import generate

TAGS = ["red", "blue", "shoes"]
ANSWERS = {
    "answer": "tag_tokens", "min_tags": 0, "max_tags": 3, "max_tokens": 8, "title": 64, "description": 64,
    "attributes": 64,
}  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "title": f"Cup {n}"}) + "\n" for n in range(20)))
    return path


def write_run(folder: Path, export: dict[str, Any]) -> Path:
    vocabulary = TagVocabulary.from_json(TAGS)
    folder.mkdir()
    vocabulary.save(folder / "vocabulary.json")
    (folder / "prompt.jinja").write_text("{{ product.title }}")
    for weights in ("model", "model-int8"):
        (folder / weights).mkdir()
        (folder / weights / "config.json").write_text("{}")
    manifest = RunManifest(
        program="sft.train",
        kind="qlora",
        base_model="tiny",
        vocabulary=vocabulary.fingerprint,
        data={},
        seed=0,
        metrics={},
        details={"answers": ANSWERS, "export": export},
        provenance=provenance(),
    )
    manifest.write(folder)
    return folder


def edit_run(run: Path, **changes: Any) -> None:
    manifest = RunManifest.read(run)
    manifest.model_copy(update={"details": manifest.details | changes}).write(run)


def test_a_run_is_tagged_again_where_its_weights_or_calibration_changed(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    loaded: list[dict[str, Any]] = []
    tagger = NullTagger(TagVocabulary.from_json(TAGS))

    def stream(products: Iterable[Product]) -> Iterator[Tagging]:
        for product in products:
            asked.append(product.id)
            yield from tagger.stream([product])

    def load(run: FineTunedRun, **options: Any) -> SimpleNamespace:
        loaded.append({"run": run.folder, **options})
        return SimpleNamespace(stream=stream, usage=Usage())

    monkeypatch.setattr(spec, "load_run_tagger", load)
    run = write_run(tmp_path / "mine", {"sha256": "aa", "int8": {"sha256": "bb"}})

    def tag(*options: str) -> int:
        asked.clear()
        arguments = [str(catalogue), str(tmp_path / "out"), "--run", str(run), "--quiet", *options]
        assert generate.main(arguments) == 0
        return len(asked)

    assert tag() == 20
    assert loaded == [{"run": run, "engine": "vllm", "weights": "model", "decoding": "set", "fused": False}]
    # Weights of the other kind that are exported later are none of these taggings' business.
    edit_run(run, export={"sha256": "aa", "int8": {"sha256": "cc"}}, speed={"seconds": 1})
    assert tag() == 0
    assert tag("--weights", "model-int8") == 20
    assert loaded[-1]["weights"] == "model-int8"
    assert tag() == 20
    (run / "calibration.json").write_text("{}")
    assert tag() == 20
    edit_run(run, export={"sha256": "dd"})
    assert tag() == 20
    edit_run(run, answers=ANSWERS | {"max_tags": 2})
    assert tag() == 20
    assert tag() == 0
    # What `sft.fuse` fits is a part of the run; without it the taggings of before stand.
    (run / "evidence").mkdir()
    (run / "evidence" / "weights.json").write_text("{}")
    assert tag() == 20
    assert loaded[-1]["fused"] is True
    (run / "evidence" / "weights.json").write_text('{"weights": {}}')
    assert tag() == 20
    assert tag("--evidence", "none") == 20
    assert loaded[-1]["fused"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "export the run first: python -m sft.export"),
        (["--weights", "model-int8"], "--quantize int8"),
        (["--max-tags", "3"], "--max-tags cannot be combined with --run"),
    ],
)
def test_a_run_that_cannot_tag_is_one_line(
    catalogue: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "mine", {})
    assert generate.main([str(catalogue), str(tmp_path / "out"), "--run", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_server_tags_a_catalogue(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    httpx = pytest.importorskip("httpx")
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    seen: list[Any] = []

    def server(request: Any) -> Any:
        seen.append(request)
        content = "no answer" if "Cup 7" in request.content.decode() else '{"tags": ["red"]}'
        message = {"role": "assistant", "content": content}
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return httpx.Response(200, json={"choices": choices, "usage": usage})

    start = http_client.HttpTagger.__init__

    def without_network(self: Any, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options, transport=httpx.MockTransport(server))

    monkeypatch.setattr(http_client.HttpTagger, "__init__", without_network)
    monkeypatch.setenv("SHOP_KEY", "secret")
    out = tmp_path / "out"
    arguments = [
        str(catalogue), str(out), "--vocabulary", str(tmp_path / "tags.json"), "--endpoint", "http://127.0.0.1:1/v1",
        "--model", "theirs", "--key-variable", "SHOP_KEY", "--quiet",
    ]  # fmt: skip
    assert generate.main(arguments) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["unparsed"], summary["prompt_tokens"]) == (20, 1, 200)
    assert {request.headers["authorization"] for request in seen} == {"Bearer secret"}
    rows = [row for path in out.glob("parts-0001/*") for row in pq.read_table(path).to_pylist()]
    assert [row["id"] for row in rows if row["status"] != "ok"] == ["7"]
    assert {row["model"] for row in rows} == {"theirs"}
    assert "secret" not in "".join(path.read_text(errors="ignore") for path in out.rglob("*.json"))


def test_what_a_server_would_not_heed_is_refused(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    arguments = [str(catalogue), str(tmp_path / "out"), "--vocabulary", str(tmp_path / "tags.json")]
    assert generate.main([*arguments, "--endpoint", "http://127.0.0.1:1/v1", "--max-tags", "2"]) == 2
    assert "--max-tags cannot be combined with --endpoint" in capsys.readouterr().err
