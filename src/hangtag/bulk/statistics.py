"""What an edition's taggings look like as a whole, counted in one pass over its parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag.bulk.ledger import PartRecord
from hangtag.bulk.parts import PartFolder
from hangtag.catalogue.files import CatalogueFile

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_BINS = 20
_COUNTED = ("tagged", "duplicates", "reused", "carried", "malformed", "ok", "unparsed", "error")
_MOST_REASONS = 20
_REASON_LENGTH = 80


def least_confidence(tags: Any) -> npt.NDArray[np.float64]:
    """Return each tagging's least confidence of a column of tags; 0 where it has no tag or a tag without one."""
    tags = tags.combine_chunks()
    offsets = tags.offsets.to_numpy()
    values = tags.values.field("confidence").to_numpy(zero_copy_only=False)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0)
    least = np.zeros(len(tags))
    held = np.flatnonzero(offsets[1:] > offsets[:-1])
    if len(held):
        starts = offsets[:-1][held] - offsets[0]
        least[held] = np.minimum.reduceat(values[offsets[0] : offsets[-1]], starts)
    return least


def edition_statistics(folder: PartFolder, records: Sequence[PartRecord]) -> dict[str, Any]:
    """Return counts of rows by what became of them, tags, facets, tags a product, confidences and reasons.

    `confidence` is that of a tagging's least sure tag, over "ok" taggings that hold tags; `accepted` gives, for
    each threshold, the number of rows whose tagging reaches it.
    """
    import pyarrow.compute as pc

    counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
    tags: Counter[tuple[str, str]] = Counter()
    sizes: Counter[int] = Counter()
    reasons: Counter[str] = Counter()
    histogram = np.zeros(_BINS, np.int64)
    accepted = np.zeros(len(THRESHOLDS), np.int64)
    num_rows = 0
    for record in records:
        counts.update(record.counts)
        num_rows += record.num_rows
        answers = folder.answers(record)
        column = answers.column("tags").combine_chunks()
        held = column.flatten()
        both = pc.binary_join_element_wise(held.field("facet"), held.field("tag"), "\0")
        for item in both.value_counts().to_pylist():
            facet, _, tag = item["values"].partition("\0")
            tags[facet, tag] += item["counts"]
        is_ok = pc.equal(answers.column("status"), "ok").to_numpy(zero_copy_only=False)
        lengths = np.diff(column.offsets.to_numpy())[is_ok]
        sizes.update(dict(enumerate(np.bincount(lengths).tolist())))
        least = least_confidence(answers.column("tags"))[is_ok]
        histogram += np.histogram(least[lengths > 0], bins=_BINS, range=(0, 1))[0]
        accepted += [int(((least >= threshold) & (lengths > 0)).sum()) for threshold in THRESHOLDS]
        if not is_ok.all():
            failed = answers.column("reason").filter(pc.invert(pc.equal(answers.column("status"), "ok")))
            reasons.update(str(reason)[:_REASON_LENGTH] for reason in failed.to_pylist())
    by_facet: dict[str, int] = {}
    for (facet, _), number in tags.items():
        by_facet[facet] = by_facet.get(facet, 0) + number
    ordered = sorted(tags.items(), key=lambda item: (-item[1], item[0]))
    return {
        "rows": num_rows,
        **counts,
        "failed": counts["unparsed"] + counts["error"],
        "tags_per_product": {str(size): number for size, number in sorted(sizes.items()) if number},
        "confidence": {"bins": _BINS, "counts": histogram.tolist()},
        "accepted": {str(at): int(number) for at, number in zip(THRESHOLDS, accepted, strict=True)},
        "facets": dict(sorted(by_facet.items(), key=lambda item: -item[1])),
        "tags": [{"tag": tag, "facet": facet, "products": number} for (facet, tag), number in ordered],
        "reasons": dict(reasons.most_common(_MOST_REASONS)),
    }


def failed_rows(
    folder: PartFolder, records: Sequence[PartRecord], files: Sequence[CatalogueFile]
) -> Iterator[bytes]:
    """Yield a line of JSON for every row whose tagging is not "ok", in order: where it stands, and why."""
    import pyarrow.compute as pc

    for record in records:
        if not record.counts.get("error", 0) + record.counts.get("unparsed", 0):
            continue
        table = folder.table(record)
        statuses = table.column("status").cast("string")
        rows = np.flatnonzero(pc.not_equal(statuses, "ok").to_numpy(zero_copy_only=False))
        chosen = table.select(["id", "status", "reason", "key"]).take(rows)
        for row, failed in zip(rows.tolist(), chosen.to_pylist(), strict=True):
            file, number = place_of(record, row)
            failed["key"] = failed["key"].hex() if failed["key"] else None
            line = {"file": files[file].name, "row": number, **failed}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def place_of(record: PartRecord, row: int) -> tuple[int, int]:
    """Return the number of the file of a part's row, and the row's number in it from 1."""
    for file, first, count in record.segments:
        if row < count:
            return file, first + row + 1
        row -= count
    raise IndexError(row)
