"""The command line of the training programs: a run is begun or gone on with, and what failed is said in a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.errors import RecipeError, TrainingError
from sft.recipe import TrainingRecipe
from sft.run_directory import check_trainer_options, open_run


@dataclass(frozen=True)
class TrainingProgram:
    """A program that makes a run directory of a recipe and a source of products."""

    name: str
    description: str
    recipe: type[TrainingRecipe]
    trainer_options: str
    """The configuration class, as module.Class, whose options a recipe may give in `trainer`."""
    set_here: frozenset[str]
    """Those that the program sets itself, which a recipe may not."""
    train: Callable[..., dict[str, Any]]
    """Called with recipe, source, run directory and `resume`; returns what is printed."""
    when_out_of_memory: str
    """What to lower."""
    source: str = "data"
    source_help: str = "labelled dataset: train, validation, vocabulary.json"

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Train, or resume, and write the run directory; return the exit code."""
        needs_recipe = any(field.is_required() for field in self.recipe.model_fields.values())
        parser = program.parser(f"python -m {self.name}", self.description)
        parser.add_argument(
            "recipe",
            nargs="?",
            help=f"YAML file, see {self.recipe.__name__} in {self.recipe.__module__}; a resumed run has its own"
            + ("" if needs_recipe else " (default: its defaults)"),
        )
        parser.add_argument(f"--{self.source}", dest="source", required=True, type=Path, help=self.source_help)
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run directory to write")
        parser.add_argument("--resume", action="store_true", help="continue the run in --out")
        options = parser.parse_args(argv)

        def work() -> int:
            if needs_recipe and not options.recipe and not options.resume:
                raise RecipeError("no recipe: give one of sft/recipes/, or --resume")
            recipe = open_run(options.out, options.recipe, self.recipe, resume=options.resume)
            check_trainer_options(recipe.trainer, self.trainer_options, self.set_here)
            try:
                print(json.dumps(self.train(recipe, options.source, options.out, resume=options.resume)))
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise TrainingError(
                    f"out of memory. Lower {self.when_out_of_memory}; then start again "
                    "(a resumed run keeps its recipe)"
                ) from None
            return 0

        return program.run(self.name, work)


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: torch raises a RuntimeError of its own for each kind of device."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
