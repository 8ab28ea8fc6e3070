"""The command line that the training programs share."""

from __future__ import annotations

import json

import pytest

from sft.program import TrainingProgram
from sft.recipe import TrainingRecipe


class ToyRecipe(TrainingRecipe):
    """A recipe with nothing that must be said."""


class NeedyRecipe(TrainingRecipe):
    """A recipe that must name a model."""

    model: str


def program(train, recipe=ToyRecipe):
    return TrainingProgram(
        name="sft.toy",
        description="A program that trains nothing.",
        recipe=recipe,
        trainer_options="transformers.TrainingArguments",
        set_here=frozenset({"output_dir"}),
        train=train,
        when_out_of_memory="the batch size",
        source="texts",
    ).main


def test_recipe_source_and_folder_reach_the_training_and_its_metrics_are_the_last_line(tmp_path, capsys):
    def train(recipe, source, out, *, resume):
        return {"recipe": recipe.limit, "source": source.name, "out": out.name, "resume": resume}

    recipe = tmp_path / "r.yaml"
    recipe.write_text("limit: 7\n")
    assert program(train)([str(recipe), "--texts", "a.csv", "--out", str(tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == {"recipe": 7, "source": "a.csv", "out": "run", "resume": False}


def raise_from(error):
    def train(*_, **__):
        raise error

    return train


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["python", "cpu", "cuda"],
)
def test_out_of_memory_says_what_to_lower(tmp_path, capsys, error):
    assert program(raise_from(error))(["--texts", "a", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sft.toy: out of memory. Lower the batch size")
    assert said.count("\n") == 1


def test_an_error_of_another_kind_is_not_taken_for_it(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        program(raise_from(RuntimeError("shapes differ")))(["--texts", "a", "--out", str(tmp_path / "run")])


def test_a_recipe_is_asked_for_where_it_must_say_something(tmp_path, capsys):
    never = raise_from(AssertionError("it was trained"))
    assert program(never, NeedyRecipe)(["--texts", "a", "--out", str(tmp_path / "run")]) == 2
    assert "no recipe: give one" in capsys.readouterr().err


def test_a_trainer_option_that_the_program_sets_is_refused(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("trainer: {output_dir: elsewhere}\n")
    never = raise_from(AssertionError("it was trained"))
    assert program(never)([str(recipe), "--texts", "a", "--out", str(tmp_path / "run")]) == 2
    assert "trainer.output_dir is set by the program" in capsys.readouterr().err
