"""What a run directory holds after a kill, and where a run goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft.run_directory import last_checkpoint


def write_checkpoint(out: Path, step: int, state: str | None) -> Path:
    folder = out / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return folder


def test_the_newest_checkpoint_is_that_of_the_latest_step(tmp_path):
    for step in (9, 100, 20):
        write_checkpoint(tmp_path, step, "{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-100"


@pytest.mark.parametrize("state", [None, "", '{"global_step": 1'], ids=["absent", "empty", "half"])
def test_a_checkpoint_that_a_kill_left_half_written_is_passed_over_and_removed(tmp_path, state):
    whole = write_checkpoint(tmp_path, 5, '{"global_step": 5}')
    half = write_checkpoint(tmp_path, 6, state)
    assert last_checkpoint(tmp_path) == whole
    assert not half.exists()


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    assert last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 1, None)
    assert last_checkpoint(tmp_path) is None
