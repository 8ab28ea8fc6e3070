from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hangtag import program
from hangtag.durable import replaced
from hangtag.errors import DataError, EngineError


def _raises(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("tags.json: no tags"), 2, "shop: tags.json: no tags\n"),
        (EngineError("it died"), 1, "shop: it died\n"),
        (KeyboardInterrupt(), 1, "shop: interrupted; go on later\n"),
    ],
)
def test_what_ends_a_program_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run("shop", _raises(error), interrupted="interrupted; go on later") == code
    assert capsys.readouterr().err == line


def test_faults_of_our_own_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        program.run("shop", _raises(ZeroDivisionError()))


def test_a_log_is_not_filled_with_bars(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in program.progress("tagging", "product", iterable=range(1000)):
        pass
    shown = capsys.readouterr().err
    assert "tagging: 100%" in shown
    assert shown.count("\r") <= 3


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    with replaced(path) as temporary:
        temporary.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"
    with pytest.raises(OSError, match="disk"), replaced(path) as temporary:
        temporary.write_text("2")
        raise OSError("disk full")
    assert path.read_text() == "1"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(ValueError, match="damaged"), replaced(path) as temporary:
        temporary.mkdir()
        raise ValueError("damaged")
    assert [entry.name for entry in path.iterdir()] == ["old"]
    with replaced(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
