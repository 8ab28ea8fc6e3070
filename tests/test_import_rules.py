"""Who imports what: the rules of CONTRIBUTING, held by the imports themselves, nested ones included."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from architecture import drawn, levels, module_imports, rooms, with_map

import hangtag
from hangtag.endpoint.telemetry import Telemetry
from hangtag.errors import MissingExtra

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("sft", "serve", "eval", "bench")
PLACES = ("src", *PROGRAMS, "tools", "tests", "examples")
HEAVY = ("torch", "vllm", "transformers", "trl", "peft", "sklearn", "matplotlib", "pandas", "numba", "ray")
# Where the package may name a heavy library: a file for a foreign library, or a function that needs it.
HOMES = ("baselines/", "encoders/", "engines/", "remote/")
EXCEPTIONS = {
    "language_model/calibration.py": {"sklearn"},  # fits a calibration; applying one needs numpy alone
    "endpoint/vocabularies.py": {"transformers"},  # the served model's tokenizer
    "models.py": {"torch", "transformers"},  # fetching makes a folder out of weights in other formats
}


def modules_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides what it imports"
            yield node.module or ""


def imports_of(place: str) -> dict[str, set[str]]:
    """Return the top-level modules that each file imports, by the file's path from the root."""
    return {
        file.relative_to(ROOT).as_posix(): {module.partition(".")[0] for module in modules_of(file)}
        for file in sorted((ROOT / place).rglob("*.py"))
    }


def pyproject() -> dict[str, list[str]]:
    """Return the names of the distributions in each extra, those of the core under ''."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [normal(re.split(r"[\[<>=~!; ]", line)[0]) for line in lines] for extra, lines in lists.items()}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


# Reads the files of everything installed: a second each time.
installed = functools.cache(importlib.metadata.packages_distributions)


def distributions(module: str) -> set[str]:
    """Return what a module may come from; its own name where that is not installed here."""
    return {normal(name) for name in installed().get(module, [module])}


def foreign(place: str) -> dict[str, set[str]]:
    """Return which files of a place import each module that is neither Python's nor ours."""
    ours = {
        "hangtag",
        *PLACES,
        *(path.stem for place in ("tests", "tools") for path in (ROOT / place).glob("*.py")),
    }
    found = defaultdict(set)
    for file, modules in imports_of(place).items():
        for module in modules - ours - set(sys.stdlib_module_names):
            found[module].add(file)
    return dict(found)


@pytest.mark.parametrize("place", [*PROGRAMS, "tools"])
def test_programs_meet_on_disk(place: str) -> None:
    # The benchmarks import what they measure.
    others = {*PLACES} - {place} - ({"serve", "sft"} if place == "bench" else set())
    assert {file: found for file, modules in imports_of(place).items() if (found := modules & others)} == {}


def test_the_package_imports_no_program() -> None:
    assert {file: found for file, modules in imports_of("src").items() if (found := modules & {*PLACES})} == {}


def test_no_import_runs_upwards_or_in_a_circle() -> None:
    modules = module_imports(ROOT / "src" / "hangtag")
    assert {"hangtag.spec", "hangtag.constraint.automaton"} <= modules.keys()
    levels(modules)
    levels(rooms(modules))


def test_a_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    for name, line in {"__init__": "", "a": "def f(): import shop.b", "b": "from shop.a import f"}.items():
        (package / f"{name}.py").write_text(line)
    with pytest.raises(ValueError, match=r"shop\.a -> shop\.b -> shop\.a"):
        levels(module_imports(package))


def test_the_map_is_that_of_the_imports() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    new = with_map(page, drawn(rooms(module_imports(ROOT / "src" / "hangtag"))))
    assert new == page, "write it anew: python tools/architecture.py"


def test_the_ways_name_what_there_is() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:hangtag|sft|serve|eval)\.[\w.]+)(?::([\w.]+))?`", page)
    assert len(named) > 40
    for module, name in named:
        path = ROOT / ("src" if module.startswith("hangtag") else "") / module.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        assert file.is_file(), module
        source = file.read_text(encoding="utf-8")
        first, _, method = name.partition(".")
        assert not name or re.search(
            rf"^(def|class) {first}\b|\b{first}\b,?$|import .*\b{first}\b", source, re.M
        ), name
        assert not method or f"def {method}(" in source, name


def test_heavy_libraries_have_their_homes() -> None:
    outside = {}
    for file, modules in imports_of("src/hangtag").items():
        name = file.removeprefix("src/hangtag/")
        found = modules & {*HEAVY} - EXCEPTIONS.get(name, set())
        if found and not name.startswith(HOMES):
            outside[name] = found
    assert outside == {}


def test_exceptions_are_needed() -> None:
    imported = imports_of("src/hangtag")
    assert all(libraries <= imported[f"src/hangtag/{name}"] for name, libraries in EXCEPTIONS.items())


@pytest.mark.parametrize("place", PLACES)
def test_what_is_imported_is_declared(place: str) -> None:
    declared = {
        name
        for extra, names in pyproject().items()
        if extra != "dev" or place in ("tests", "examples")
        for name in names
    }
    assert {
        module: files for module, files in foreign(place).items() if not distributions(module) & declared
    } == {}


def test_what_the_core_depends_on_is_imported() -> None:
    needed = {name for module in foreign("src") for name in distributions(module)}
    assert set(pyproject()[""]) - needed == set()


@pytest.mark.parametrize(
    "module",
    [
        "hangtag",
        "hangtag.cli",
        "hangtag.language_model.generative",
        "serve.generate",
        "serve.demo",
        "bench.__main__",
        "serve.server",
        "hangtag.endpoint.app",
        "hangtag.desk.serving",
        "hangtag.remote.http_client",
        "eval.run",
        "eval.ceiling",
        "eval.compare",
        "eval.report",
        "sft.train_bert",
    ],
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_hangtag_loads_nothing_else() -> None:
    code = "import sys; before = {*sys.modules}; import hangtag; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hangtag" in loaded
    assert {name for name in loaded if name.startswith("hangtag.")} == set()
    assert loaded & {"numpy", "pyarrow", "pydantic", "jinja2"} == set()


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [("prometheus_client", "cpu", lambda: Telemetry())],
)
def test_a_missing_extra_is_one_line(
    module: str, extra: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"^{module} is not installed; .*: pip install 'hangtag\[{extra}\]'$"):
        use()


def test_public_names() -> None:
    assert hangtag.__all__ == sorted(hangtag.__all__)
    assert all(getattr(hangtag, name) for name in hangtag.__all__)
    assert {*hangtag.__all__, "__version__"} <= {*dir(hangtag)}
    with pytest.raises(AttributeError, match="'hangtag' has no attribute 'Tags'"):
        hangtag.Tags  # noqa: B018
