"""The index of keys against a dictionary."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hangtag.bulk import key_index
from hangtag.bulk.key_index import KeyIndex, split_keys
from hangtag.bulk.keys import NO_KEY


def drawn_parts(draw: random.Random, sizes: list[int]) -> list[list[bytes]]:
    pool = [draw.randbytes(16) for _ in range(200)]
    # Equal first halves: told apart by the second.
    pool += [bytes(8) + draw.randbytes(8) for _ in range(3)] + [b"\xff" * 16]
    return [[draw.choice([NO_KEY, *pool[:3], draw.choice(pool)]) for _ in range(size)] for size in sizes]


def check(index: KeyIndex, parts: list[list[bytes]], draw: random.Random) -> None:
    first: dict[bytes, tuple[int, int]] = {}
    for number, keys in enumerate(parts):
        for row, key in enumerate(keys):
            first.setdefault(key, (number, row))
    wanted = [*dict.fromkeys(key for keys in parts for key in keys), *(draw.randbytes(16) for _ in range(20))]
    draw.shuffle(wanted)
    found, numbers, rows = index.lookup(split_keys(b"".join(wanted)))
    clashing = [key for key in wanted if key[:8] == bytes(8)]
    for key, is_found, number, row in zip(wanted, found, numbers, rows, strict=True):
        if key == NO_KEY or key not in first:
            assert not is_found
        elif key not in clashing:
            assert is_found
            assert (number, row) == first[key]
        elif is_found:
            # One of several keys with an equal half may be missed; a wrong place is never given.
            assert parts[number][row] == key


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=12), st.booleans())
def test_lookup_agrees_with_a_dictionary(seed: int, sizes: list[int], on_disk: bool) -> None:
    import tempfile

    draw = random.Random(seed)
    parts = drawn_parts(draw, sizes)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if on_disk:
            patch.setattr(key_index, "_IN_MEMORY", 30)
            patch.setattr(key_index, "_SLICE", 16)
        index = KeyIndex(Path(folder), 0, lambda _: b"")
        for number, keys in enumerate(parts):
            index.add(number, b"".join(keys))
        check(index, parts, draw)
        index.close()
        again = KeyIndex(Path(folder), len(parts), lambda number: b"".join(parts[number]))
        check(again, parts, draw)
        again.close()


def test_files_of_a_crash_are_covered_or_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "_IN_MEMORY", 10)
    draw = random.Random(1)
    parts = [[draw.randbytes(16) for _ in range(8)] for _ in range(4)]
    index = KeyIndex(tmp_path, 0, lambda _: b"")
    for number, keys in enumerate(parts):
        index.add(number, b"".join(keys))
    index.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000000-000003.keys"]
    # An input of the merge that was not deleted, a run of a part that was never entered, and a torn file.
    (tmp_path / "000002-000003.keys").write_bytes(os.urandom(24 * 16))
    (tmp_path / "000004-000005.keys").write_bytes(os.urandom(24))
    (tmp_path / "000001-000001.keys").write_bytes(os.urandom(25))
    again = KeyIndex(tmp_path, 4, lambda number: b"".join(parts[number]))
    check(again, parts, draw)
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_memory_of_a_lookup_is_that_of_a_slice(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    index = KeyIndex(tmp_path, 0, lambda _: b"")
    keys = [draw.bytes(16 * 100_000) for _ in range(6)]
    for number, part in enumerate(keys):
        index.add(number, part)
    found, numbers, rows = index.lookup(split_keys(keys[3][: 16 * 1000]))
    assert found.all()
    assert set(numbers) == {3}
    assert list(rows) == list(range(1000))
    assert sum(run.mapping is None for run in index._runs) <= 1
    index.close()
