from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.taxonomy import made_taxonomy, write_formats
from hangtag.errors import RecipeError
from hangtag.taxonomies.importing import import_taxonomy


def suffixes(path: tuple[str, ...]) -> list[str]:
    """The ends of a path, the shortest first."""
    return [" > ".join(path[-length:]) for length in range(1, len(path) + 1)]


def test_a_taxonomy_of_11000_gets_the_right_names_in_every_format(tmp_path: Path) -> None:
    paths = made_taxonomy(11_000)
    assert len(paths) == len(set(paths)) == 11_000
    assert max(map(len, paths)) == 5
    assert len({path[-1] for path in paths}) < 2_000
    held = Counter(suffix for path in paths for suffix in suffixes(path))
    expected = [
        next((suffix for suffix in suffixes(path) if held[suffix] == 1), suffixes(path)[-1]) for path in paths
    ]
    for file in write_formats(paths, tmp_path):
        vocabulary = import_taxonomy(file).vocabulary
        assert list(vocabulary.names) == expected, file
        assert [vocabulary.path(name) for name in vocabulary.names] == paths, file
        assert len({tag.id for tag in vocabulary}) == 11_000, file


def test_the_same_seed_makes_the_same_taxonomy() -> None:
    assert made_taxonomy(4_000) == made_taxonomy(4_000) != made_taxonomy(4_000, seed=1)
    with pytest.raises(RecipeError, match="40 categories; expected 4000 to 32000"):
        made_taxonomy(40)
