"""`serve.server` before it starts anything: what it refuses, and what it tells vLLM."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from hangtag import TagVocabulary
from hangtag.endpoint.settings import SETTINGS, EndpointSettings, settings_folder
from hangtag.engines.hardware import Hardware
from hangtag.errors import DataError, EngineError, HangtagError, ModelError, RecipeError
from hangtag.manifest import RunManifest
from serve import server, vllm_start
from serve.vllm_process import explain

CPU = Hardware("cpu", "float32", "")


def parsed(*options: str) -> argparse.Namespace:
    return server._parser().parse_args([*options])


@pytest.mark.parametrize(
    "flag",
    [
        "--api-key=x", "--api_key", "--async-scheduling", "--speculative-config", "--speculative_config={}", "-sc",
        "--spec-method", "--spec-model=x", "--specul", "--served-model-name", "--enable-log-requests", "--uds",
        "--grpc", "--grpc-port", "--chat-template", "--trust-request-chat-template", "--config=x",
        "--root-path=/x",
        "--tokenizer=x", "--logprobs-mode=raw_logits", "--headless", "--data-parallel-multi-port-external-lb",
    ],
)  # fmt: skip
def test_flags_that_would_break_a_promise_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["--vocabulary", "x", flag]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "refused" in line


def test_other_flags_go_on_to_vllm() -> None:
    flags = ["--data-parallel-size", "2", "--tensor-parallel-size=2", "--kv-cache-dtype", "fp8", "--seed", "1",
             "--specialize-active-lora", "--tokenizer-mode", "auto"]  # fmt: skip
    vllm_start.check_flags(flags)
    command = vllm_start.vllm_command(
        parsed("--vocabulary", "x"), vllm_start.Weights("/m"), ("hangtag", "hangtag-m"), 8000, CPU, flags, 2048
    )
    assert command[1:4] == ["-m", "hangtag.engines.vllm_serve", "/m"]
    assert command[-2 - len(flags) :] == [*flags, "--middleware", "hangtag.endpoint.app.Endpoint"]
    text = " ".join(command)
    for part in (
        "--no-async-scheduling", "--logprobs-mode processed_logprobs", "--enforce-eager", "--dtype float32",
        "--max-model-len 2048", "--served-model-name hangtag hangtag-m", "--host 127.0.0.1 --port 8000",
    ):  # fmt: skip
        assert part in text


def test_an_adapter_is_served_under_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    weights = vllm_start.Weights("/m", str(tmp_path), "/t")
    command = vllm_start.vllm_command(
        parsed("--vocabulary", "x"), weights, ("hangtag", "hangtag-r"), 1, CPU, [], 64
    )
    at = command.index("--lora-modules")
    assert command[at + 1 : at + 3] == [f"hangtag={tmp_path}", f"hangtag-r={tmp_path}"]
    text = " ".join(command)
    assert "--served-model-name hangtag-base --enable-lora --max-lora-rank 8 --tokenizer /t " in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--run, or a vocabulary"),
        (("--run", "nowhere"), "no such run directory"),
        (("--vocabulary", "no/tags.json"), "no/tags.json: No such file"),
        (("--vocabulary", "x", "--model", "no/such/model"), "no such folder"),
        (("--vocabulary", "x", "--host", "0.0.0.0"), "a key is needed"),
        (("--vocabulary", "x", "--host", "shop.example"), "a key is needed"),
        (("--vocabulary", "x", "--keys", "no/keys"), "no/keys: No such file"),
    ],
)
def test_what_is_missing_is_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "free_port", lambda host, port: port)
    assert server.main(options) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("serve.server: ")
    assert message in line


def test_without_a_key_only_this_machine_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        server.check_address(parsed("--host", host))
    for host in ("0.0.0.0", "::", "192.168.0.1", ""):
        with pytest.raises(RecipeError, match="a key is needed"):
            server.check_address(parsed("--host", host))
        server.check_address(parsed("--host", host, "--open-without-key"))
        server.check_address(parsed("--host", host, "--keys", "f"))
    monkeypatch.setenv("VLLM_API_KEY", "x")
    with pytest.raises(RecipeError, match="use --keys"):
        server.check_address(parsed())


class TestVocabularies:
    def settings(self, *options: str) -> list[dict[str, Any]]:
        return server.vocabulary_settings(parsed(*options))

    def test_names_come_from_files_or_are_given(self) -> None:
        found = self.settings(
            "--vocabulary", "a/shop.json", "--vocabulary", "eu=b/tags.txt", "--examples", "eu=e.jsonl"
        )
        assert [entry["name"] for entry in found] == ["shop", "eu"]
        assert "examples" not in found[0]
        assert found[1]["examples"].endswith("e.jsonl")

    def test_examples_of_the_only_vocabulary_need_no_name(self) -> None:
        [entry] = self.settings("--vocabulary", "shop.json", "--examples", "labelled.jsonl", "--shots", "2")
        assert entry["examples"].endswith("labelled.jsonl")
        assert entry["shots"] == 2

    def test_a_run_comes_first(self) -> None:
        found = self.settings("--run", "runs/r", "--vocabulary", "shop.json")
        assert [entry["name"] for entry in found] == ["default", "shop"]
        assert found[0]["run"].endswith("runs/r")

    def test_what_is_not_clear_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="is taken"):
            self.settings("--vocabulary", "a/x.json", "--vocabulary", "b/x.json")
        with pytest.raises(RecipeError, match="for which vocabulary"):
            self.settings("--vocabulary", "a.json", "--vocabulary", "b.json", "--examples", "e.jsonl")


class TestRuns:
    def run(self, folder: Path, vocabulary: TagVocabulary, *parts: str, answer: str = "text") -> Path:
        folder.mkdir()
        vocabulary.save(folder / "vocabulary.json")
        for part in parts:
            (folder / part).mkdir()
            (folder / part / ("adapter_config.json" if part == "adapter" else "config.json")).write_text(
                '{"r": 4}'
            )
        base = folder.parent / "base"
        base.mkdir(exist_ok=True)
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_text("")
        RunManifest(
            program="sft.train", kind="qlora", base_model=str(base), vocabulary=vocabulary.fingerprint,
            details={"answers": {
                "answer": answer, "max_tags": 3, "max_tokens": 9, "title": 9, "description": 9, "attributes": 9,
            }, "export": {"sha256": "aa", "int8": {"sha256": "bb"}}},
        ).write(folder)  # fmt: skip
        return folder

    def test_merged_weights_are_taken_before_an_adapter(self, tmp_path: Path, vocabulary: TagVocabulary) -> None:
        run = self.run(tmp_path / "r", vocabulary, "model", "model-int8", "adapter")
        assert vllm_start.choose_weights(parsed("--run", str(run))) == vllm_start.Weights(str(run / "model"))
        chosen = vllm_start.choose_weights(parsed("--run", str(run), "--weights", "model-int8"))
        assert chosen == vllm_start.Weights(str(run / "model-int8"))
        chosen = vllm_start.choose_weights(parsed("--run", str(run), "--weights", "adapter"))
        assert chosen == vllm_start.Weights(str(tmp_path / "base"), str(run / "adapter"), str(run / "tokenizer"))

    def test_an_adapter_alone_is_served_on_its_base(self, tmp_path: Path, vocabulary: TagVocabulary) -> None:
        run = self.run(tmp_path / "r", vocabulary, "adapter")
        assert vllm_start.choose_weights(parsed("--run", str(run))).adapter == str(run / "adapter")

    def test_a_run_without_weights_is_refused(self, tmp_path: Path, vocabulary: TagVocabulary) -> None:
        run = self.run(tmp_path / "r", vocabulary)
        with pytest.raises(DataError, match=r"sft\.export"):
            vllm_start.choose_weights(parsed("--run", str(run)))
        with pytest.raises(DataError, match="model-int8/; .*--quantize int8"):
            vllm_start.choose_weights(parsed("--run", str(run), "--weights", "model-int8"))
        with pytest.raises(RecipeError, match="exclude"):
            vllm_start.choose_weights(parsed("--run", str(run), "--model", "m"))

    def test_tag_tokens_have_no_adapter_to_serve(self, tmp_path: Path, vocabulary: TagVocabulary) -> None:
        run = self.run(tmp_path / "r", vocabulary, "adapter", answer="tag_tokens")
        with pytest.raises(DataError, match="model/; export"):
            vllm_start.choose_weights(parsed("--run", str(run)))
        with pytest.raises(ModelError, match="merge them with"):
            vllm_start.choose_weights(parsed("--run", str(run), "--weights", "adapter"))

    def test_a_run_of_another_kind_is_refused(self, tmp_path: Path, vocabulary: TagVocabulary) -> None:
        vocabulary.save(tmp_path / "vocabulary.json")
        RunManifest(
            program="sft.train_bert", kind="bert", base_model="b", vocabulary=vocabulary.fingerprint
        ).write(tmp_path)
        with pytest.raises(DataError, match=r"expected one of sft\.train"):
            vllm_start.choose_weights(parsed("--run", str(tmp_path)))


def test_settings_travel_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "model_length", lambda model, wanted: 512)
    arguments = parsed(
        "--vocabulary", "shop.json", "--threshold", "0.7", "--max-body-mib", "0.5", "--log-products"
    )
    settings = server.endpoint_settings(arguments, vllm_start.Weights("/models/m"), is_cpu=True)
    (tmp_path / SETTINGS).write_text(json.dumps(settings.model_dump(mode="json")))
    monkeypatch.setenv("HANGTAG_ENDPOINT", str(tmp_path))
    assert EndpointSettings.load(settings_folder()) == settings
    assert settings.names == ("hangtag", "hangtag-m")
    assert settings.log_products == "masked"
    assert settings.max_body_bytes == 2**19
    with pytest.raises(HangtagError, match="threshold"):
        server.endpoint_settings(
            parsed("--threshold", "7", "--vocabulary", "a.json"), vllm_start.Weights("/m"), is_cpu=True
        )


def test_the_child_s_environment_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vllm_start._DROPPED_VARIABLES:
        monkeypatch.setenv(name, "1")
    environment = vllm_start.child_environment("cpu", {"HANGTAG_ENDPOINT": "/x"})
    assert not set(vllm_start._DROPPED_VARIABLES) & set(environment)
    assert environment["HANGTAG_ENDPOINT"] == "/x"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_memory_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1e6")
    with pytest.raises(EngineError, match="GiB are needed"):
        vllm_start.check_memory(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "code", "reason"),
    [
        (["hello"], -9, "out of memory"),
        (["x", "vllm serve: error: unrecognized arguments: --foo"], 2, "unrecognized arguments: --foo"),
        (
            ["Traceback", "(EngineCore pid=1) ERROR 1 [core.py:1] ValueError: too small", "RuntimeError: above"],
            1,
            "ValueError: too small",
        ),
        (["ERROR: hangtag: /x: no keys", "Exception: y"], 3, "hangtag: /x: no keys"),
        ([], 1, "exit code 1"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failed_start_is_found(lines: list[str], code: int, reason: str) -> None:
    assert reason in explain(lines, code)


def test_the_ready_line_shows_how_to_ask() -> None:
    line = server.ready_line("http://127.0.0.1:8000", "hangtag", needs_key=True)
    assert "Bearer $HANGTAG_KEY" in line
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in line
    assert server._address("0.0.0.0", 1) == "127.0.0.1:1"
    assert server._address("::", 1) == "[::1]:1"


def test_a_wrong_file_is_refused_before_anything_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def probed() -> None:
        raise AssertionError("the hardware was probed first")

    monkeypatch.setattr("hangtag.engines.hardware.probe_hardware", probed)
    model = Path(__file__).parents[1] / "data" / "output_0_1_0" / "model"
    missing = tmp_path / "none.json"
    assert server.main(["--model", str(model), "--vocabulary", str(missing), "--port", "0"]) == 2
    assert f"{missing}: No such file" in capsys.readouterr().err
