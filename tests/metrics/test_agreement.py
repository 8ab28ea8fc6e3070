"""Shares of random samples, and the agreement of people, on numbers from the literature."""

from __future__ import annotations

import math

import pytest

from hangtag.metrics import krippendorff_alpha, wilson


def test_alpha_of_krippendorffs_own_example() -> None:
    # Krippendorff (2011), C: four observers, twelve units, nominal data, missing ones left out.
    table = {
        "A": "1 2 3 3 2 1 4 1 2 . . .",
        "B": "1 2 3 3 2 2 4 1 2 5 . 3",
        "C": ". 3 3 3 2 3 4 2 2 5 1 .",
        "D": "1 2 3 3 2 4 4 1 2 5 1 .",
    }
    units = zip(*(line.split() for line in table.values()), strict=True)
    sets = [[frozenset({value}) for value in unit if value != "."] for unit in units]
    assert krippendorff_alpha(sets) == pytest.approx(0.743, abs=5e-4)


def test_sets_that_overlap_disagree_in_part() -> None:
    one, both, other = frozenset("a"), frozenset("ab"), frozenset("c")
    near = krippendorff_alpha([(one, both), (other, other)])
    far = krippendorff_alpha([(one, other), (other, other)])
    assert far < near < 1
    assert krippendorff_alpha([(one, one), (other, other)]) == 1.0
    assert math.isnan(krippendorff_alpha([(one, one)]))
    assert math.isnan(krippendorff_alpha([(one,), (other,)]))


def test_wilson() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    assert (round(wilson(81, 263).low, 4), round(wilson(81, 263).high, 4)) == (0.2553, 0.3662)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0.0, 0.1611)
    assert math.isnan(wilson(0, 0).value)
    with pytest.raises(ValueError, match="2 right of 1"):
        wilson(2, 1)
