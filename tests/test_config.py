from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from hangtag.config import Recipe, load_recipe
from hangtag.errors import RecipeError


class Inner(Recipe):
    rate: float = Field(default=0.1, gt=0)


class Example(Recipe):
    epochs: int = 3
    trainer: Inner = Inner()


def test_overrides_win_and_none_does_not(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("epochs: 5\ntrainer: {rate: 0.5}\n")
    assert load_recipe(path, Example, {"epochs": None}) == Example(epochs=5, trainer=Inner(rate=0.5))
    assert load_recipe(path, Example, {"epochs": 7}).epochs == 7
    assert load_recipe(None, Example) == Example()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 5", "unknown key `epoch`; did you mean `epochs`?"),
        ("trainer: {rat: 1}", "unknown key `trainer.rat`; did you mean `rate`?"),
        ("zzz: 5", "unknown key `zzz`; known keys: epochs, trainer"),
        ("'a[b]': 5", "unknown key `a[b]`; known keys: epochs, trainer"),
        ("epochs: many", "`epochs`: Input should be a valid integer"),
        ("trainer: {rate: 0}", "`trainer.rate`: Input should be greater than 0 (got 0)"),
        ("- 1", "got list, expected `key: value` lines"),
        ("a: [", "not YAML"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, Example)
    assert message in str(caught.value)
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "none.yaml", Example)
