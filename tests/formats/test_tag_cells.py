from __future__ import annotations

import pytest

from hangtag.formats.tag_cells import choose_separator, join_tags, split_tags


@pytest.mark.parametrize(
    ("cell", "separator", "tags"),
    [
        ('["red", "light blue"]', ",", ["red", "light blue"]),
        ("['red', \"it's\"]", ",", ["red", "it's"]),
        ("['a' 'b'\n 'c']", ",", ["a", "b", "c"]),
        ("[]", ",", []),
        ("red, blue,, red", ",", ["red", "blue"]),
        ("#red #light blue", "#", ["red", "light blue"]),
        ("red\nblue", "\n", ["red", "blue"]),
        ("hats, caps", "", ["hats, caps"]),
        ("red\\, dark, blue", ",", ["red, dark", "blue"]),
        ('{"choices":["a, b","c"]}', "", ["a, b", "c"]),
    ],
)
def test_tags_of_a_cell(cell: str, separator: str, tags: list[str]) -> None:
    assert split_tags(cell, separator) == tags


@pytest.mark.parametrize("cell", ["[red, blue]", "['a' + 'b']", "['a'"])
def test_what_is_no_list_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match="expected a list"):
        split_tags(cell, ",")
    with pytest.raises(ValueError, match="expected a JSON list"):
        split_tags("red", None)


@pytest.mark.parametrize(
    ("cells", "known", "separator"),
    [
        (["a, b", "c"], set(), ","),
        (["a, b; c, d", "e; f"], set(), ";"),
        (["a|b", "c"], set(), "|"),
        (["#a #b", "#c"], set(), "#"),
        (["a\nb", "c"], set(), "\n"),
        (["a", "b"], set(), ""),
        (['["a"]', ""], set(), None),
        (["hats, caps", "red"], {"hats, caps", "red"}, ""),
        (["Hats, caps; red"], {"hats, caps", "red"}, ";"),
        (["x, y", "z"], {"unrelated"}, ","),
        (["hats, caps", '{"choices":["red","hats, caps"]}'], set(), ""),
    ],
)
def test_the_separator_of_a_column(cells: list[str], known: set[str], separator: str | None) -> None:
    assert choose_separator(cells, frozenset(known)) == separator


def test_joined_tags_are_split_again() -> None:
    tags = ["soft, warm", "red"]
    assert split_tags(join_tags(tags, ",", is_escaped=True), ",") == tags
