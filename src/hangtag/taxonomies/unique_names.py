"""Names that occur twice, made unique by the shortest part of their paths that tells them apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hangtag.vocabulary import PATH_SEPARATOR

Path = tuple[str, ...]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path; no two paths may be the same.

    Case does not count. A name that is unique stays alone; a root cannot grow.

    >>> unique_names([("Men", "Boots"), ("Women", "Boots"), ("Hats",)])
    ['Men > Boots', 'Women > Boots', 'Hats']
    """
    lengths = [1] * len(paths)
    names = [path[-1] for path in paths]
    while grown := [n for same in _repeated(names) for n in same if lengths[n] < len(paths[n])]:
        for number in grown:
            lengths[number] += 1
            names[number] = PATH_SEPARATOR.join(paths[number][-lengths[number] :])
    return names


def folded(name: str) -> str:
    """Return what two names that a vocabulary holds as one have in common."""
    return unicodedata.normalize("NFC", name).casefold()


def _repeated(names: Sequence[str]) -> list[list[int]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(folded(name), []).append(number)
    return [same for same in places.values() if len(same) > 1]
