"""Restricting rows of logits to the tokens that a constraint allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def keep_only(
    logits: torch.Tensor,
    rows: Sequence[int] | NDArray[np.int64],
    allowed: Sequence[NDArray[np.int32]],
    biases: Sequence[NDArray[np.float64] | None],
) -> None:
    """Set `logits[row]` to -inf except at that row's allowed columns, and add its bias there, in place.

    Shapes: `logits` (rows, columns), any strides; `rows` ascending and distinct; `allowed[n]` the columns of
    `rows[n]`, at least one, and `biases[n]` what is added to each of them. A single allowed column gets 0, so
    that a row is never without a finite logit. Rows that are not named are not touched. Cost: one gather, one
    scatter and a fill per run of neighbouring
    rows; 64 rows of 49152 float32 take about 0.3 ms on one CPU core for up to 100 columns a row.
    """
    if not len(rows):
        return
    number = np.asarray(rows, np.int64)
    lengths = np.fromiter(map(len, allowed), np.int64, len(allowed))
    row_stride, column_stride = logits.stride()
    places = np.concatenate(allowed).astype(np.int64)
    if column_stride != 1:
        places *= column_stride
    places += np.repeat(number * row_stride, lengths)
    # One index into the storage is several times as fast as two into the matrix; a sharded vocabulary leaves
    # the matrix with gaps between its rows.
    span = (logits.shape[0] - 1) * row_stride + (logits.shape[1] - 1) * column_stride + 1
    flat = logits.as_strided((span,), (1,), logits.storage_offset())
    index = torch.from_numpy(places).to(logits.device, non_blocking=True)
    kept = flat.index_select(0, index)
    if any(bias is not None for bias in biases):
        added = [np.zeros(n) if bias is None else bias for n, bias in zip(lengths, biases, strict=True)]
        kept += torch.from_numpy(np.concatenate(added)).to(kept.device, kept.dtype, non_blocking=True)
    if (lengths == 1).any():
        kept.masked_fill_(torch.from_numpy(np.repeat(lengths == 1, lengths)).to(logits.device), 0.0)
    for start, end in _runs(number):
        logits[start:end].fill_(-torch.inf)
    flat.index_copy_(0, index, kept)


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of each run of neighbouring rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks):
        yield int(run[0]), int(run[-1]) + 1
