"""Why an item is recommended to a user, in a few words."""

from __future__ import annotations

import numpy as np

from hangtag.recommend.features import Sources
from hangtag.recommend.history import History
from hangtag.recommend.items import Items

_NUM_TAGS = 3


def reasons(history: History, item: int, items: Items, sources: Sources) -> tuple[str, ...]:
    """Return what speaks for an item, given its position and the history of one user; at least one reason.

    `bought before`; `bought with ID`: the past item whose buyers took this one most, and latest; `tags A, B`: the
    tags that count most for the likeness to the past; `popular` where nothing else is known.
    """
    found = []
    past, weight = history.recent.indices, history.recent.data
    if item in past:
        found.append("bought before")
    if len(past):
        together = weight * sources.neighbours[past][:, [item]].toarray().ravel()
        if together.max() > 0:
            found.append(f"bought with {items.ids[past[together.argmax()]]}")
    alike = (history.recent @ sources.tags.vectors).multiply(sources.tags.vectors[[item]]).tocsr()
    if alike.nnz:
        best = alike.indices[np.argsort(-alike.data, kind="stable")[:_NUM_TAGS]]
        found.append(f"tags {', '.join(items.tags[tag] for tag in best)}")
    return tuple(found) or (("popular",) if np.isfinite(sources.first[item]) else ("new",))
