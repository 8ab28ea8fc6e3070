"""Where the tagging of a key stands, on disk: sorted runs that merge as they grow.

Like the runs of a log-structured merge tree: every part brings a run, and a run merges with its neighbour while it
is at least half as long, so that a lookup searches about log2(parts) runs. Long runs are files, read through a
memory map in slices that are let go at once: memory is the same at a million and at a hundred million rows. A
run's file is named for the parts it covers. All of it can be made again from the parts' own keys.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hangtag.durable import Step, no_step, write_durably

Words = npt.NDArray[np.uint64]
Columns = tuple[Words, Words, Words]
"""Both halves of the keys, sorted by the first, and where each stands: part << 32 | row."""

_IN_MEMORY = 100_000
_SLICE = 1 << 17
_NAME = re.compile(r"(\d+)-(\d+)\.keys")
_ROW_BYTES = 24
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@dataclass(slots=True)
class _Run:
    first_part: int
    last_part: int
    columns: Columns
    path: Path | None = None
    mapping: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.columns[0])

    def slices(self) -> Iterator[Columns]:
        """Yield the rows in slices, letting go of the memory of each."""
        high, low, place = self.columns
        for start in range(0, len(self), _SLICE):
            end = start + _SLICE
            yield high[start:end], low[start:end], place[start:end]
            if self.mapping is not None:
                self.mapping.madvise(mmap.MADV_DONTNEED)

    def between(self, first: int, last: int) -> Columns:
        """Return a copy of the rows whose first half is in [first, last)."""
        ends = np.array([first, min(last, (1 << 64) - 1)], np.uint64)
        start, end = (int(position) for position in np.searchsorted(self.columns[0], ends))
        if last >= 1 << 64:
            end = len(self)
        high, low, place = (column[start:end].copy() for column in self.columns)
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)
        return high, low, place

    def close(self) -> None:
        """Let the file go."""
        if self.mapping is not None:
            empty = np.zeros(0, np.uint64)
            self.columns = (empty, empty, empty)
            self.mapping.close()
            self.mapping = None


class KeyIndex:
    """The keys of an edition's parts. Close it after use."""

    def __init__(
        self, folder: Path, num_parts: int, keys_of: Callable[[int], bytes], *, step: Step = no_step
    ) -> None:
        """Open the index of `num_parts` parts; `keys_of` returns the keys of one that no file covers."""
        self._folder = folder
        self._step = step
        self._runs: list[_Run] = []
        stored = self._stored(num_parts)
        part = 0
        while part < num_parts:
            if part in stored:
                self._append(stored[part])
                part = stored[part].last_part + 1
            else:
                self.add(part, keys_of(part))
                part += 1

    def add(self, part: int, keys: bytes) -> None:
        """Enter a part's keys, in the order of its rows; rows without a key are passed over."""
        pairs = split_keys(keys)
        rows = np.flatnonzero(pairs.any(axis=1))
        high, low = pairs[rows, 0], pairs[rows, 1]
        order = np.argsort(high, kind="stable")
        places = (np.uint64(part) << _32) | rows.astype(np.uint64)
        self._append(_Run(part, part, (high[order], low[order], places[order])))

    def lookup(self, keys: Words) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return for each key (see `split_keys`) whether it is known, and part and row where it first stands."""
        found = np.zeros(len(keys), bool)
        places = np.zeros(len(keys), np.uint64)
        order = np.argsort(keys[:, 0])
        wanted_high, wanted_low = keys[order, 0], keys[order, 1]
        for run in self._runs:
            for high, low, place in run.slices():
                begin, end = np.searchsorted(wanted_high, high[[0, -1]], "left")
                end += np.searchsorted(wanted_high[end:], high[-1], "right")
                if begin == end:
                    continue
                at = np.searchsorted(high, wanted_high[begin:end])
                at[at == len(high)] = 0
                hits = np.flatnonzero(high[at] == wanted_high[begin:end])
                hits = hits[low[at[hits]] == wanted_low[begin:end][hits]]
                chosen = order[begin + hits]
                is_first = ~found[chosen]
                chosen = chosen[is_first]
                found[chosen] = True
                places[chosen] = place[at[hits[is_first]]]
        return found, (places >> _32).astype(np.int64), (places & _LOW_32).astype(np.int64)

    def close(self) -> None:
        """Let the files go."""
        for run in self._runs:
            run.close()
        self._runs.clear()

    def _stored(self, num_parts: int) -> dict[int, _Run]:
        spans = []
        for path in self._folder.glob("*.keys"):
            match = _NAME.fullmatch(path.name)
            if match and int(match[2]) < num_parts and path.stat().st_size % _ROW_BYTES == 0:
                spans.append((int(match[1]), -int(match[2]), path))
            else:
                path.unlink(missing_ok=True)
        stored: dict[int, _Run] = {}
        end = -1
        # A merge that a crash cut short leaves its inputs beside the result, which covers them.
        for first, minus_last, path in sorted(spans):
            if first > end:
                stored[first] = _open(first, -minus_last, path)
                end = -minus_last
            else:
                path.unlink(missing_ok=True)
        return stored

    def _append(self, run: _Run) -> None:
        if not len(run):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            right, left = self._runs.pop(), self._runs.pop()
            self._runs.append(self._merge(left, right))

    def _merge(self, left: _Run, right: _Run) -> _Run:
        num_rows = len(left) + len(right)
        first, last = left.first_part, right.last_part
        if num_rows < _IN_MEMORY:
            return _Run(first, last, _merged(left.columns, right.columns))
        path = self._folder / f"{first:06d}-{last:06d}.keys"
        num_slices = -(-num_rows // _SLICE)
        bounds = [(1 << 64) * number // num_slices for number in range(num_slices + 1)]

        def blocks() -> Iterator[memoryview]:
            # Column after column; memory for one slice instead of one pass.
            for column in range(3):
                for start, end in itertools.pairwise(bounds):
                    merged = _merged(left.between(start, end), right.between(start, end))
                    yield memoryview(merged[column].tobytes())

        write_durably(path, blocks(), step=self._step)
        for run in (left, right):
            run.close()
            if run.path is not None:
                run.path.unlink(missing_ok=True)
        return _open(first, last, path)


def split_keys(keys: bytes) -> Words:
    """Return keys that stand one after another as rows of two numbers."""
    return np.frombuffer(keys, ">u8").astype(np.uint64).reshape(-1, 2)


def _merged(left: Columns, right: Columns) -> Columns:
    high = np.concatenate([left[0], right[0]])
    order = np.argsort(high, kind="stable")
    low, place = np.concatenate([left[1], right[1]]), np.concatenate([left[2], right[2]])
    return high[order], low[order], place[order]


def _open(first: int, last: int, path: Path) -> _Run:
    with path.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    words = np.frombuffer(mapping, np.uint64)
    num_rows = len(words) // 3
    columns = (words[:num_rows], words[num_rows : 2 * num_rows], words[2 * num_rows :])
    return _Run(first, last, columns, path, mapping)
