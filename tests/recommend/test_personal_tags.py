from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hangtag.errors import DataError
from hangtag.recommend.assignments import Assignments, hold_out, posts_of, read_assignments
from hangtag.recommend.folk_rank import folk_rank
from hangtag.recommend.personal_tags import PersonalTags, TagSources


def write(path: Path, *, num_users: int = 30) -> Path:
    """Even users say genre words, odd ones moods; each item has one of each."""
    generator = np.random.default_rng(0)
    lines = ["user,day,item,tag"]
    for user in range(num_users):
        for day, item in enumerate(generator.permutation(20)[:8]):
            tag = f"genre{item % 3}" if user % 2 == 0 else f"mood{item % 4}"
            lines.append(f"u{user},2020-01-{day + 1:02},i{item},{tag}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def assignments(tmp_path: Path) -> Assignments:
    return read_assignments(write(tmp_path / "log.csv"))


def test_the_last_post_is_held_out_with_all_that_was_said_of_its_item(assignments: Assignments) -> None:
    past, posts = hold_out(assignments)
    assert len(posts) == 30
    assert len(past.user) == 30 * 7
    left = set(zip(past.user.tolist(), past.item.tolist(), strict=True))
    assert not left & set(zip(posts.user.tolist(), posts.item.tolist(), strict=True))
    assert posts.gold.sum(1).min() == 1


def test_persons_get_their_own_words(assignments: Assignments) -> None:
    past, posts = hold_out(assignments)
    learned = PersonalTags.fit(past)
    gold = posts.gold.toarray()
    best = learned.scores(posts).argmax(1)
    assert gold[np.arange(len(posts)), best].mean() > 0.8
    assert gold[np.arange(len(posts)), folk_rank(past, posts).argmax(1)].mean() > 0.5


def test_own_and_given_count(assignments: Assignments) -> None:
    posts = posts_of(assignments)
    scores = TagSources(assignments).scores(posts)
    assert (scores["own"].sum(1) == 8).all()
    assert (scores["latest"].sum(1) == 1).all()
    item = posts.item[0]
    assert scores["given"][0].sum() == (assignments.item == item).sum()


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,day,item,tag\nu,2020-01-01,i,t\nu,soon,i,t\n,2020-01-01,i,t\n")
    found = read_assignments(path)
    assert (found.tags, found.num_bad) == (("t",), 2)
    more = read_assignments(path, found)
    assert more.users == found.users
    path.write_text("user,day,item,tag\n")
    with pytest.raises(DataError, match="no assignments"):
        read_assignments(path)


def test_too_few_posts_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,day,item,tag\nu,2020-01-01,i,t\n")
    with pytest.raises(DataError, match="five posts or more"):
        PersonalTags.fit(read_assignments(path))
