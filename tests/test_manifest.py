from __future__ import annotations

from pathlib import Path

import pytest

from hangtag import TagVocabulary
from hangtag.errors import DataError
from hangtag.manifest import MANIFEST, RunManifest, folder_sha256, load_run, provenance


def test_provenance_names_versions_and_machine() -> None:
    found = provenance()
    assert {"date", "commit", "dirty", "versions", "machine"} == found.keys()
    assert "hangtag" in found["versions"]
    assert found["machine"]["cores"] >= 1


def test_a_run_is_complete_when_its_manifest_stands(tmp_path: Path, vocabulary: TagVocabulary) -> None:
    with pytest.raises(DataError, match="no such run directory"):
        RunManifest.read(tmp_path / "none")
    with pytest.raises(DataError, match="did not complete"):
        RunManifest.read(tmp_path)
    vocabulary.save(tmp_path / "vocabulary.json")
    manifest = RunManifest(program="p", kind="bert", base_model="m", vocabulary=vocabulary.fingerprint)
    manifest.write(tmp_path)
    read, again = load_run(tmp_path)
    assert read == manifest
    assert again.tags == vocabulary.tags
    TagVocabulary(vocabulary.tags[:2]).save(tmp_path / "vocabulary.json")
    with pytest.raises(DataError, match="the run was changed after training"):
        load_run(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="not a run manifest"):
        RunManifest.read(tmp_path)


def test_folder_hash_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = folder_sha256(tmp_path)
    (tmp_path / ".hidden").write_text("2")
    assert folder_sha256(tmp_path) == first
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert folder_sha256(tmp_path) != first
