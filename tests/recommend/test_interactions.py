from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from hangtag.errors import DataError
from hangtag.recommend.cut import Cut, taken_next
from hangtag.recommend.history import History
from hangtag.recommend.interactions import Interactions, from_last, parse_columns, parse_day, read_interactions

ROWS = [
    {"user": "a", "item": "x", "time": "2024-01-02", "weight": 2},
    {"user": "a", "item": "x", "time": "2024-01-02", "weight": 1},
    {"user": "a", "item": "y", "time": "2024-01-01T12:00:00Z", "weight": 1},
    {"user": "b", "item": "x", "time": 1704067200, "weight": 1},
    {"user": "b", "item": "lost", "time": "2024-01-01", "weight": 1},
    {"user": "", "item": "x", "time": "2024-01-01", "weight": 1},
    {"user": "b", "item": "x", "time": "soon", "weight": 1},
    {"user": "b", "item": "x", "time": "2024-01-01", "weight": -1},
    {"user": "b", "item": "y", "time": "2050-01-01", "weight": 1},
]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        rows = [{name: str(value) for name, value in row.items()} for row in ROWS]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(map(str, row.values())) for row in ROWS]
        path.write_text("\n".join([",".join(ROWS[0]), *lines]) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_bad_rows_are_counted_and_the_rest_is_sorted(kind: str, tmp_path: Path) -> None:
    now = parse_day("2024-02-01")
    found = read_interactions(write(tmp_path / f"log.{kind}"), items=["x", "y"], now=now)
    assert found.counts == {"merged": 1, "unknown_item": 1, "bad": 3, "future": 1}
    assert len(found) == 3
    assert (np.diff(found.day) >= 0).all()
    assert [
        (found.users[u], found.items[i], w) for u, i, w in zip(found.user, found.item, found.weight, strict=True)
    ] == [
        ("b", "x", 1),
        ("a", "y", 1),
        ("a", "x", 3),
    ]


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,what,when\nu,i,2024-01-01\n")
    columns = parse_columns(["user=who", "item=what", "time=when"])
    assert len(read_interactions(path, columns=columns)) == 1
    with pytest.raises(DataError, match="no column 'user'; the first row has: who, what, when"):
        read_interactions(path)
    with pytest.raises(DataError, match="expected FIELD=COLUMN"):
        parse_columns(["customer=who"])


def test_a_bot_is_capped_to_its_latest(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    days = np.datetime64("2024-01-01") + np.arange(50)
    path.write_text(
        "user,item,day\n" + "".join(f"bot,i{n},{day}\n" for n, day in enumerate(days)) + "a,i1,2024-01-05\n"
    )
    found = read_interactions(path, max_per_user=10)
    assert found.counts == {"capped": 40, "capped_users": 1}
    bot = found.user == found.users.index("bot")
    assert found.day[bot].min() == parse_day("2024-02-10")
    assert (~bot).sum() == 1


def test_an_empty_file_has_no_interactions(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,day\n")
    assert len(read_interactions(path)) == 0


def log(rows: list[tuple[int, int, float]], num_items: int = 4) -> Interactions:
    user, item, day = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[2]), strict=True))
    users = tuple(f"u{n}" for n in range(user.max() + 1))
    items = tuple(f"i{n}" for n in range(num_items))
    return Interactions(users, items, user, item, day.astype(float), np.ones(len(day)))


def test_cut_in_time_leaves_users_with_a_past() -> None:
    past, future = Cut("time", 1).split(log([(0, 0, 1), (0, 1, 9), (1, 2, 9), (1, 3, 9.5)]))
    assert past.day.tolist() == [1]
    assert (future.user.tolist(), future.item.tolist()) == ([0], [1])


def test_cut_leaves_the_last_fifth_out() -> None:
    rows = [(0, n % 4, float(n)) for n in range(10)] + [(1, 0, 3.0)]
    past, future = Cut("last", 1).split(log(rows))
    assert future.day.tolist() == [8, 9]
    assert Cut("last", 1).now(past).tolist() == [7, 3]
    assert taken_next(future, 4).toarray().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert from_last(log(rows))[-1] == 0


def test_history_counts_moments_and_recency() -> None:
    known = log([(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 3, 5)])
    history = History.of(known, 4, now=np.array([6.0, 6.0]))
    assert history.times.toarray().tolist() == [[2, 1, 0, 0], [0, 0, 0, 1]]
    assert history.last.toarray()[0].tolist() == [2, 2, 0, 0]
    assert history.recent.toarray()[0].tolist() == [1, 1, 0, 0]
    assert history.latest.toarray()[0].tolist() == [0.5, 0.5, 0, 0]
    assert history.latest.toarray()[0].tolist() == [0.5, 0.5, 0, 0]
    assert history[np.array([1])].size.tolist() == [1]


def test_recency_halves_with_twenty_later_items() -> None:
    known = log([(0, 0, 0), *((0, 1 + n, 1.0 + n) for n in range(20))], num_items=21)
    recent = History.of(known, 21, now=np.array([30.0])).recent.toarray()[0]
    assert recent[0] == pytest.approx(0.5)
    assert recent[20] == 1
