"""What is built of the checkout works without it: wheel and sdist carry all files, an installed hangtag tags."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "hangtag"
NO_NETWORK = re.compile(r"name resolution|establish a new connection|Network is unreachable", re.IGNORECASE)
TAGS = "shoes\nsneakers\nred\ncanvas\ntent\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built of a copy: setuptools leaves its own files beside the code."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "src" / "hangtag", ignore=shutil.ignore_patterns("__pycache__"))
    for form in ("wheel", "sdist"):
        code = f"from setuptools import build_meta; build_meta.build_{form}({str(out)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return out


def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


def test_wheel_and_sdist_carry_every_file_of_the_package(built: Path) -> None:
    files = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    carried = {"language_model/prompts/zero_shot_v1.jinja", "sample/vocabulary.json", "py.typed"}
    assert {f"hangtag/{name}" for name in carried} <= files
    with zipfile.ZipFile(wheel(built)) as archive:
        assert files - {*archive.namelist()} == set()
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        assert files - {name.partition("/src/")[2] for name in archive.getnames()} == set()


def test_the_folder_of_prompts_is_a_link_into_the_package() -> None:
    assert (ROOT / "prompts").is_symlink()
    assert (ROOT / "prompts").resolve() == PACKAGE / "language_model" / "prompts"


def environment() -> dict[str, str]:
    """The variables of a user who has nothing of the checkout on Python's path."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and what it asks for; torch and transformers are borrowed."""
    place = tmp_path_factory.mktemp("environment")
    assert run(place, sys.executable, "-m", "venv", place / "venv").returncode == 0
    python = place / "venv" / "bin" / "python"
    done = run(place, python, "-m", "pip", "install", "--quiet", wheel(built))
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip("no network: the dependencies of the wheel cannot be had")
    assert done.returncode == 0, done.stderr
    # Only a site folder's own .pth files are followed: the checkout's editable install stays out of sight.
    site = next((place / "venv" / "lib").glob("python*")) / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: a vocabulary and nothing else."""
    (tmp_path / "tags.txt").write_text(TAGS, encoding="utf-8")
    return tmp_path


@pytest.mark.model
def test_the_installed_hangtag_is_not_the_checkout(installed: Path, folder: Path) -> None:
    code = (
        "import hangtag, sys; from hangtag.language_model.prompt import PROMPTS\n"
        "print(hangtag.__file__, PROMPTS, *sys.path, sep='\\n')"
    )
    done = run(folder, installed / "python", "-c", code)
    module, prompts, *path = done.stdout.splitlines()
    assert Path(module).is_relative_to(installed.parent)
    assert Path(prompts).is_relative_to(installed.parent)
    assert str(PACKAGE.parent) not in path
    assert str(ROOT) not in path


@pytest.mark.model
def test_hangtag_tag_works_from_the_wheel(installed: Path, folder: Path) -> None:
    command = ("tag", "Crimson trail running shoes", "--vocabulary", "tags.txt", "--engine", "transformers")
    done = run(folder, installed / "hangtag", *command)
    assert done.returncode == 0, done.stderr
    assert any(tag in done.stdout for tag in TAGS.split())


@pytest.mark.model
def test_the_lines_of_the_readme_print_what_it_shows(installed: Path, folder: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [(code, shown)] = re.findall(r"^```python\n(.*?)^```\n\n((?: {4}[^\n]*\n)+)", readme, re.M | re.S)
    assert len(code.strip().splitlines()) <= 8
    done = run(folder, installed / "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == textwrap.dedent(shown)
