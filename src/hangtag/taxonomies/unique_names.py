"""Names that occur twice, made unique by the shortest part of their paths that tells them apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hangtag.vocabulary import PATH_SEPARATOR

Path = tuple[str, ...]


def unique_names(paths: Sequence[Path], ids: Sequence[str | None]) -> tuple[list[str], int]:
    """Return a name for each path, and how many had to take an id or a number, for their whole paths are the same.

    Case does not count. A name that is unique stays alone; a root cannot grow.

    >>> unique_names([("Men", "Boots"), ("Women", "Boots"), ("Hats",)], [None] * 3)
    (['Men > Boots', 'Women > Boots', 'Hats'], 0)
    """
    lengths = [1] * len(paths)
    names = [path[-1] for path in paths]
    while grown := [n for same in _repeated(names) for n in same if lengths[n] < len(paths[n])]:
        for number in grown:
            lengths[number] += 1
            names[number] = PATH_SEPARATOR.join(paths[number][-lengths[number] :])
    taken = {_folded(name) for name in names}
    num_alike = 0
    for same in _repeated(names):
        for place, number in enumerate(same[1:], start=2):
            num_alike += 1
            name = f"{names[number]} ({_short(ids[number]) or place})"
            while _folded(name) in taken:
                place += 1
                name = f"{names[number]} ({place})"
            taken.add(_folded(name))
            names[number] = name
    return names, num_alike


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _repeated(names: Sequence[str]) -> list[list[int]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(_folded(name), []).append(number)
    return [same for same in places.values() if len(same) > 1]


def _short(id: str | None) -> str | None:
    """Return the last part of an id: what stands after a URI's last slash or hash."""
    return id and id.rstrip("/#").replace("#", "/").rsplit("/", 1)[-1]
