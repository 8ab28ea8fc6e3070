"""`python -m eval.ceiling` on arms whose errors are known."""

import json

import pytest

import eval.arms
from eval.ceiling import main
from eval.predict import Contestant
from eval.run import main as run
from tests.eval_dataset import COLOURS, KINDS, WordTagger, write_dataset

ARMS = ("majority", "lexical", "nearest")


class WrongColour(WordTagger):
    """Answers what the title says, but the next colour for the products whose number `is_wrong` names."""

    name = "wrong colour"

    def __init__(self, vocabulary, is_wrong, unparsed=()):
        super().__init__(vocabulary, unparsed=unparsed)
        self._is_wrong = is_wrong

    def _words(self, product, number):
        colour, kind = product.title.split()[:2]
        if self._is_wrong(number):
            colour = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]
        # Every seventh product of the dataset has no colour in its labels.
        return [colour, kind] if number % 7 else [kind]


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "shop", num_test=120)

    def evaluate(taggers, *options):
        monkeypatch.setattr(
            eval.arms.ArmLoader,
            "load",
            lambda loader, arm: Contestant(WrongColour(loader._dataset.vocabulary, **taggers[arm.kind])),
        )
        out = tmp_path / "out"
        run(
            [
                "--data",
                str(dataset),
                "--arms",
                ",".join(taggers),
                "--out",
                str(out),
                "--resamples",
                "200",
                *options,
            ]
        )
        return out

    return evaluate


def in_turns(turn):
    return lambda number: number % 3 == turn or number % 10 == 1


def read(out):
    return json.loads((out / "ceiling.json").read_text())


def test_a_vote_mends_what_one_arm_has_wrong_and_not_what_all_have(evaluate, capsys):
    out = evaluate({arm: {"is_wrong": in_turns(turn)} for turn, arm in enumerate(ARMS)})
    capsys.readouterr()
    assert main([str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "ceiling.json")
    found = read(out)
    assert sorted(found["arms"]) == sorted(ARMS)
    with_colour = [number for number in range(120) if number % 7]
    all_wrong = [number for number in with_colour if number % 10 == 1]
    colour = {name: share["value"] for name, share in found["facets"]["colour"].items()}
    for turn, arm in enumerate(ARMS):
        num_wrong = sum(in_turns(turn)(number) for number in with_colour)
        assert colour[arm] == pytest.approx(1 - num_wrong / 120)
    assert colour["none"] == colour["none, all alike"] == pytest.approx(len(all_wrong) / 120)
    assert colour["vote"] == colour["at least one"] == pytest.approx(1 - len(all_wrong) / 120)
    assert found["facets"]["kind"]["none"]["value"] == 0
    sets = found["sets"]
    assert sets["vote"]["exact_match"] == sets["best pick"]["exact_match"]
    assert sets["vote"]["exact_match"]["value"] == pytest.approx(1 - len(all_wrong) / 120)
    assert sets["vote"]["against"]["set_f1"]["low"] > 0
    assert sets[found["baseline"]]["against"] is None
    assert [row["id"] for row in found["disputed"]] == [f"test-{number}" for number in all_wrong]
    assert all(row["gold"] != row["answer"] and len(row["gold"]) == 1 for row in found["disputed"])
    assert "| colour | " in (out / "ceiling.md").read_text()


def test_a_tie_goes_to_the_best_arm_and_an_unread_answer_has_no_say(evaluate):
    out = evaluate(
        {
            "majority": {"is_wrong": lambda number: number % 2 == 0},
            "lexical": {"is_wrong": lambda number: False, "unparsed": {1, 2, 3}},
        }
    )
    assert main([str(out)]) == 0
    found = read(out)
    assert found["arms"] == ["lexical", "majority"]
    # Of the three that `lexical` left unread, `majority` has 1 and 3 right.
    assert found["sets"]["vote"]["exact_match"]["value"] == pytest.approx(1 - 1 / 120)
    assert [row["id"] for row in found["disputed"]] == []
    assert found["facets"]["colour"]["none"]["value"] == pytest.approx(1 / 120)


def test_the_best_thresholds_leave_out_what_is_wrong_and_unsure(evaluate):
    # The tagger is less sure of every fourth product, in both facets.
    out = evaluate(
        {
            "majority": {"is_wrong": lambda number: number % 4 == 0},
            "lexical": {"is_wrong": lambda number: number % 4 == 1, "unparsed": {2}},
        }
    )
    assert main([str(out)]) == 0
    sets = read(out)["sets"]
    unsure = [number for number in range(120) if number % 4 == 0 and number % 7]
    plain, kept = sets["majority"], sets["majority, best thresholds"]
    # One of two tags right; then the colour left out, so that only it is missed.
    assert plain["set_f1"]["value"] == pytest.approx(1 - len(unsure) / 120 * (1 - 1 / 2))
    assert kept["set_f1"]["value"] == pytest.approx(1 - len(unsure) / 120 * (1 - 2 / 3))
    assert kept["exact_match"] == plain["exact_match"]
    # Of those that it has wrong this one is sure: no threshold helps, and what was not read stays unread.
    assert sets["lexical, best thresholds"]["set_f1"] == sets["lexical"]["set_f1"]


def test_without_texts_disputed_products_are_named_only(evaluate):
    out = evaluate({arm: {"is_wrong": in_turns(0)} for arm in ARMS}, "--no-texts")
    assert main([str(out), "--arms", "majority,nearest"]) == 0
    assert read(out)["arms"] == ["majority", "nearest"]
    assert {name for row in read(out)["disputed"] for name in row} == {"id", "facet"}
    assert not set(KINDS) & set((out / "ceiling.md").read_text().split())


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ("majority,bert", "no arm 'bert'; expected some of majority, lexical, nearest"),
        ("majority", "1 of the arms with all 120 products; expected two or more"),
    ],
)
def test_arms_that_are_not_there_are_one_line(evaluate, capsys, arms, expected):
    out = evaluate({arm: {"is_wrong": in_turns(0)} for arm in ARMS})
    capsys.readouterr()
    assert main([str(out), "--arms", arms]) == 2
    assert expected in capsys.readouterr().err
    assert not (out / "ceiling.json").exists()


def test_a_folder_that_is_no_evaluation_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "expected a results folder of eval.run" in capsys.readouterr().err
