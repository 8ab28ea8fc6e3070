"""SIGTERM ends a catalogue run as Ctrl-C does, and leaves the process's own handler as it was; both end a run that
waits for its input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from hangtag import Product, Tagging
from hangtag.baselines.null import NullTagger
from serve import generate

ROOT = Path(__file__).resolve().parents[2]


def test_sigterm_saves_what_was_tagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tags.txt").write_text("red\nblue\n")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"title": f"P {n}"}) + "\n" for n in range(50)))
    arguments = [str(tmp_path / "in.jsonl"), str(tmp_path / "out"), "--vocabulary", str(tmp_path / "tags.txt")]
    stream = NullTagger.stream
    asked: list[str] = []

    def ended(tagger: NullTagger, products: Iterable[Product]) -> Iterator[Tagging]:
        for tagging in stream(tagger, products):
            asked.append(tagging.id)
            if len(asked) == 30:
                os.kill(os.getpid(), signal.SIGTERM)
            yield tagging

    monkeypatch.setattr(NullTagger, "stream", ended)
    before = signal.getsignal(signal.SIGTERM)
    command = [*arguments, "--engine", "null", "--quiet", "--part-rows", "20"]
    assert generate.main(command) == 1
    assert "interrupted; what was tagged is safe" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(asked) <= 31
    assert generate.main(command) == 0
    assert 50 <= len(asked) <= 51


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_standard_input_ends(tmp_path: Path, number: signal.Signals) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("a shell that puts a job into the background lets it ignore Ctrl-C, and so would this run")
    (tmp_path / "tags.txt").write_text("red\nblue\n")
    command = [sys.executable, "-m", "serve.generate", "-", str(tmp_path / "out"), "--engine", "null", "--quiet"]
    command += ["--vocabulary", str(tmp_path / "tags.txt"), "--part-rows", "20", "--window", "5"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("".join(json.dumps({"title": f"P {n}"}) + "\n" for n in range(5000)))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not [*tmp_path.glob("out/parts-0001/part-*")] and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == 1
        assert process.stderr is not None
        error = process.stderr.read()
    assert "interrupted; what was tagged is safe" in error
    assert error.count("\n") == 1
