"""SIGTERM ends a catalogue run as Ctrl-C does, and leaves the process's own handler as it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from hangtag import Product, Tagging
from hangtag.taggers.null import NullTagger
from serve import generate


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
