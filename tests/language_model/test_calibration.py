from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hangtag.errors import DataError
from hangtag.language_model.calibration import Calibration, IsotonicMap
from hangtag.tagging import ScoredTag, Tagging


def outcomes(facet: str, number: int, right_at) -> list[tuple[str, float, bool]]:
    generator = random.Random(facet)
    found = []
    for _ in range(number):
        confidence = generator.random()
        found.append((facet, confidence, generator.random() < right_at(confidence)))
    return found


def test_confidences_become_the_precision_that_was_observed():
    fitted = Calibration.fit(
        outcomes("too sure", 30000, lambda c: c / 2) + outcomes("modest", 30000, lambda c: min(1.0, 2 * c))
    )
    for confidence in (0.2, 0.4, 0.6, 0.8):
        assert fitted.calibrated("too sure", confidence) == pytest.approx(confidence / 2, abs=0.08)
        assert fitted.calibrated("modest", confidence) == pytest.approx(min(1.0, 2 * confidence), abs=0.08)


def test_a_facet_with_few_tags_takes_the_map_of_all():
    fitted = Calibration.fit(outcomes("many", 1000, lambda c: 0.25) + [("few", 0.9, True)] * 99)
    assert fitted.calibrated("few", 0.5) == fitted.calibrated("never seen", 0.5)
    assert fitted.calibrated("many", 0.9) < fitted.calibrated("few", 0.9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_maps_rise_and_stay_within_0_and_1(pairs):
    fitted = Calibration.fit([("f", confidence, is_right) for confidence, is_right in pairs])
    values = [fitted.calibrated("f", step / 50) for step in range(51)]
    assert all(0 <= value <= 1 for value in values)
    assert all(one <= other + 1e-9 for one, other in itertools.pairwise(values))


def test_a_tagging_keeps_all_but_its_confidences():
    fitted = Calibration({}, IsotonicMap(confidence=(0.0, 1.0), precision=(0.0, 0.5)))
    tags = (ScoredTag(tag="a", facet="f", confidence=0.8), ScoredTag(tag="b", facet="f"))
    tagging = Tagging(id="1", tags=tags, model="m", vocabulary="v")
    found = fitted.apply(tagging)
    assert [tag.confidence for tag in found.tags] == [pytest.approx(0.4), None]
    assert found.names == tagging.names


def test_it_is_read_as_it_was_written(tmp_path):
    fitted = Calibration.fit(outcomes("f", 300, lambda c: c))
    fitted.save(tmp_path / "calibration.json")
    read = Calibration.load(tmp_path / "calibration.json")
    assert read.fingerprint == fitted.fingerprint
    assert read.calibrated("f", 0.3) == fitted.calibrated("f", 0.3)
    assert Calibration.fit(outcomes("g", 300, lambda c: c)).fingerprint != fitted.fingerprint


@pytest.mark.parametrize("text", ["", "[]", '{"facets": {}}', json.dumps({"facets": {"f": 3}, "other": {}})])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match="not a calibration"):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(DataError, match="expected a run's calibration"):
        Calibration.load(tmp_path / "missing.json")


def test_without_a_tag_there_is_nothing_to_fit():
    with pytest.raises(DataError, match="cannot be calibrated"):
        Calibration.fit([])
