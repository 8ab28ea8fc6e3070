from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hangtag import Product, Tag, TagVocabulary
from hangtag.models import PACKAGED_MODELS

# How long an example takes says more about a shared machine than about a strategy. Integration repeats the same
# examples, so that it judges the change; every other run draws new ones.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.register_profile("integration", settings.get_profile("shared"), derandomize=True)
settings.load_profile("integration" if os.environ.get("CI") else "shared")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that wait for one another spin by default: where something else wants the cores, ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_FIELD_LIMIT = csv.field_size_limit()
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> None:
    """Unit tests open no socket; tests with models or a browser start servers that talk to themselves."""
    if not any(map(request.node.get_closest_marker, ("model", "gpu", "browser"))):
        request.getfixturevalue("socket_disabled")


@pytest.fixture(autouse=True)
def _own_field_limit() -> Iterator[None]:
    """The reader of catalogues raises the csv module's limit for the whole process."""
    # A fixture of a module may have raised it before the first of its tests.
    csv.field_size_limit(_FIELD_LIMIT)
    yield
    csv.field_size_limit(_FIELD_LIMIT)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the tier `gpu` where there is none, before a fixture starts an engine for them."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name, model in PACKAGED_MODELS.items() if not model.is_fetched]
    if missing:
        skip = pytest.mark.skip(reason=f"base models not fetched: {', '.join(missing)} (make setup)")
        for item in items:
            if item.get_closest_marker("model"):
                item.add_marker(skip)


@pytest.fixture
def vocabulary() -> TagVocabulary:
    return TagVocabulary(
        [
            Tag("red", "colour", aliases=("crimson", "红色")),
            Tag("blue", "colour"),
            Tag("shoes", "type"),
            Tag("running shoes", "type", parent="shoes"),
            Tag("waterproof", "feature"),
        ]
    )


@pytest.fixture
def product() -> Product:
    return Product(
        id="p1",
        title="Trail runner",
        description="Light shoe, not waterproof.",
        attributes={"colour": "red", "size": "42"},
        tags=("red", "running shoes"),
    )


@pytest.fixture(scope="session")
def labelled_data() -> Path:
    """The folder with real labelled catalogues (hm, myntra, …), which is no part of the repository."""
    folder = Path(os.environ.get("HANGTAG_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "hm" / "vocabulary.json").is_file():
        pytest.skip("no labelled catalogues (set HANGTAG_DATA to their folder)")
    return folder
