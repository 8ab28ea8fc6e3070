"""Who took what, when and how much: interactions read from files, cleaned, and cut in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.catalogue import products
from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError

FIELDS = ("user", "item", "time", "weight")
MAX_PER_USER = 10_000
_READ_ROWS = 4096
_DAY_S = 86_400.0
_EPOCH_MS_FROM = 1e11


@dataclass(frozen=True)
class Interactions:
    """Interactions in order of time; all arrays have the shape (num_interactions,).

    `user` and `item` are positions in `users` and `items`; `day` counts days since 1970 (UTC), with fractions.
    `counts` says what reading left out or changed, by reason.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    day: NDArray[np.float64]
    weight: NDArray[np.float64]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def only(self, keep: NDArray[np.bool_]) -> Interactions:
        """Return the interactions where `keep` (num_interactions,) holds; users and items stay as they are."""
        return replace(
            self, user=self.user[keep], item=self.item[keep], day=self.day[keep], weight=self.weight[keep]
        )

    def until(self, day: float) -> Interactions:
        """Return what came before `day`."""
        return self.only(self.day < day)

    def since(self, day: float) -> Interactions:
        """Return what came on `day` or later."""
        return self.only(self.day >= day)


def parse_columns(mappings: Sequence[str]) -> dict[str, str]:
    """Return {field: column} of `--map` options such as `user=customer_id`.

    Raises:
        DataError: an option has another form or names no field of an interaction.
    """
    return products.parse_columns(mappings, FIELDS, has_attributes=False)


def read_interactions(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    items: Sequence[str] = (),
    users: Sequence[str] = (),
    now: float | None = None,
    max_per_user: int = MAX_PER_USER,
) -> Interactions:
    """Return the interactions of a .jsonl, .csv (also .gz) or .parquet file, sorted by time.

    `columns` maps user, item, time and weight to column names; by default `time` is read from `time` or `day`,
    and weight is 1 where there is no such column. A time is an ISO date or moment, or seconds (milliseconds from
    1e11 on) since 1970. `items`, where given, are all that may occur; `users` get the first positions. `now`
    (days since 1970) is the last time that counts.

    Left out and counted in `counts`: `bad` rows (no user, item or time; a weight that is no positive number),
    `unknown_item`, `future` and `capped`: of a user with more than `max_per_user` interactions the latest stay,
    so one bot does not drown the others. Events that are alike in user, item and time are one, with the sum of
    their weights (`merged`).

    Raises:
        DataError: the file is missing or of another kind, or a column is not in it.
    """
    file = catalogue_file(path)
    rows = CatalogueRows([file], None)
    counts: Counter[str] = Counter()
    to_user = {name: position for position, name in enumerate(users)}
    to_item = {name: position for position, name in enumerate(items)}
    events: dict[tuple[int, int, float], float] = {}
    reader: _EventReader | None = None
    try:
        while batch := rows.read(_READ_ROWS):
            for _, row in batch:
                if isinstance(row, str):
                    counts["bad"] += 1
                    continue
                reader = reader or _EventReader(row, columns or {}, file.name)
                event = reader(row)
                if event is None:
                    counts["bad"] += 1
                    continue
                user, item, day, weight = event
                if items and item not in to_item:
                    counts["unknown_item"] += 1
                elif now is not None and day > now:
                    counts["future"] += 1
                else:
                    key = (
                        to_user.setdefault(user, len(to_user)),
                        to_item.setdefault(item, len(to_item)),
                        day,
                    )
                    counts["merged"] += key in events
                    events[key] = events.get(key, 0.0) + weight
    finally:
        rows.close()
    return _arrays(events, tuple(to_user), tuple(to_item), counts, max_per_user)


class _EventReader:
    """Reads an event from a row; None where the row is none."""

    def __init__(self, first: Mapping[str, Any], columns: Mapping[str, str], source: str) -> None:
        time = "time" if "time" in first or "day" not in first else "day"
        self._user, self._item = columns.get("user", "user"), columns.get("item", "item")
        self._time, self._weight = columns.get("time", time), columns.get("weight", "weight")
        wanted = [self._user, self._item, self._time, *([self._weight] if "weight" in columns else [])]
        if missing := [column for column in wanted if column not in first]:
            raise DataError(
                f"{source}: no column {missing[0]!r}; the first row has: {', '.join(first)}; name it with "
                "--map FIELD=COLUMN"
            )
        self._days: dict[Any, float | None] = {}

    def __call__(self, row: Mapping[str, Any]) -> tuple[str, str, float, float] | None:
        user, item, time = row.get(self._user), row.get(self._item), row.get(self._time)
        if user in (None, "") or item in (None, "") or time in (None, ""):
            return None
        if time not in self._days:
            self._days[time] = parse_day(time)
        day = self._days[time]
        weight = row.get(self._weight, 1.0)
        try:
            weight = 1.0 if weight in (None, "") else float(weight)
        except (TypeError, ValueError):
            return None
        if day is None or not 0 < weight < np.inf:
            return None
        return str(user), str(item), day, weight


def parse_day(time: Any) -> float | None:
    """Return days since 1970 (UTC) of a date, a moment or an epoch; None where it is none of these.

    Examples:
        >>> parse_day("1970-01-02T12:00:00Z"), parse_day(86400), parse_day("soon")
        (1.5, 1.0, None)
    """
    if isinstance(time, datetime):
        moment = time
    else:
        try:
            seconds = float(time)
        except (TypeError, ValueError):
            try:
                moment = datetime.fromisoformat(str(time))
            except ValueError:
                return None
        else:
            if not np.isfinite(seconds):
                return None
            return seconds / (1000 if abs(seconds) >= _EPOCH_MS_FROM else 1) / _DAY_S
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() / _DAY_S


def _arrays(
    events: Mapping[tuple[int, int, float], float],
    users: tuple[str, ...],
    items: tuple[str, ...],
    counts: Counter[str],
    max_per_user: int,
) -> Interactions:
    flat = np.fromiter(chain.from_iterable(events), np.float64, count=3 * len(events)).reshape(-1, 3)
    weight = np.fromiter(events.values(), np.float64, count=len(events))
    order = np.argsort(flat[:, 2], kind="stable")
    user, item, day = flat[order, 0].astype(np.int64), flat[order, 1].astype(np.int64), flat[order, 2]
    found = Interactions(users, items, user, item, day, weight[order])
    if len(events) and np.bincount(user).max() > max_per_user:
        keep = from_last(found) < max_per_user
        counts["capped"] = int((~keep).sum())
        counts["capped_users"] = int((np.bincount(user) > max_per_user).sum())
        found = found.only(keep)
    return replace(found, counts={name: number for name, number in counts.items() if number})


def from_last(interactions: Interactions) -> NDArray[np.int64]:
    """Return how many later interactions of the same user follow each one, shape (num_interactions,)."""
    user = interactions.user
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=len(interactions.users)))
    found = np.empty(len(user), np.int64)
    found[order] = ends[user[order]] - 1 - np.arange(len(user))
    return found
