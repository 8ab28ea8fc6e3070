"""Train variants of a recipe and compare them: what a setting does, with an interval.

    python -m sft.sweep sft/recipes/sweep_hm.yaml --data ../shared/data/hm --runs runs/hm --out out/sweep_hm

Each variant is a run in RUNS/NAME, of `sft.train` or of what its `program` names; those that are complete are
kept, one that was stopped is resumed, so the same command goes on after a kill. All are measured on the same
validation products; differences to the first variant, or to the one that `against` names, come with a 95 %
interval by paired bootstrap. Writes, anew after each variant, OUT/sweep.json, OUT/table.md and, where variants
differ in the number of products, OUT/curve.svg with a line a program. The last line of stdout is the path of
sweep.json. Exit codes: 0 done, 1 a variant failed, 2 misused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from hangtag import metrics, program
from hangtag.catalogue.labelled import Dataset, load_dataset
from hangtag.config import Recipe, load_recipe
from hangtag.errors import RecipeError
from hangtag.manifest import RunFiles
from hangtag.metrics import Resampled
from hangtag.metrics.text import interval, markdown_table, signed
from hangtag.product import Product
from sft.labelled import draw
from sft.recipe import TRAINER_DEFAULTS, TrainRecipe
from sft.run_directory import TAGGINGS_FILE
from sft.sweep_baselines import LinearRecipe, fit_linear, tag_with_bert
from sft.train_bert import BertRecipe

ROOT = Path(__file__).resolve().parents[1]
_LABELS = {"set_f1": "set-F1", "exact_match": "exact match"}
_COLUMNS = (
    "variant", "products learned from", "epochs", "exact match", "set-F1", "against", "Δ exact match", "Δ set-F1"
)  # fmt: skip

_RECIPES: dict[str, type[Recipe]] = {"language_model": TrainRecipe, "bert": BertRecipe, "linear": LinearRecipe}


@dataclass(frozen=True, slots=True)
class Variant:
    """What is trained (`language_model`, `bert` or `linear`), its whole recipe, and what it is compared with."""

    program: str
    recipe: dict[str, Any]
    against: str


class Sweep(Recipe):
    """What is varied."""

    base: dict[str, Any]
    """The recipe that all variants share, see `TrainRecipe`."""
    bert: dict[str, Any] = Field(default_factory=dict)
    """The recipe that variants with `program: bert` share instead, see `BertRecipe`."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    """Departures from it by name; `trainer` is merged key by key. With `program: bert` or `program: linear` (see
    `LinearRecipe`) a variant is a baseline. `against` names the variant above that it is compared with, the first
    unless said."""

    def variant(self, name: str) -> Variant:
        """Return a variant. Raises RecipeError: its recipe is none."""
        changes = dict(self.variants[name])
        program = changes.pop("program", "language_model")
        names = list(self.variants)
        above = names[: names.index(name)]
        against = str(changes.pop("against", names[0]))
        if against not in above and name != against:
            raise RecipeError(f"variant {name!r}: against {against!r}; expected one above it: {', '.join(above)}")
        if program not in _RECIPES:
            raise RecipeError(f"variant {name!r}: program {program!r}; expected one of {', '.join(_RECIPES)}")
        base = {"language_model": self.base, "bert": self.bert}.get(program, {})
        whole = base | changes
        if program != "linear":
            whole["trainer"] = base.get("trainer", {}) | changes.get("trainer", {})
        try:
            load_recipe(None, _RECIPES[program], whole)
        except RecipeError as error:
            raise RecipeError(f"variant {name!r}: {error}") from None
        return Variant(program, whole, against)

    def measured_on(self, dataset: Dataset) -> list[Product]:
        """Return the validation products that every variant tags."""
        recipe = load_recipe(None, TrainRecipe, self.base)
        seed = (TRAINER_DEFAULTS | recipe.trainer)["seed"]
        return draw(dataset.validation, recipe.calibrate_on, seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, compare, and return the exit code."""
    parser = program.parser("python -m sft.sweep", __doc__)
    parser.add_argument("sweep", help="YAML file with `base` and `variants`")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="labelled dataset")
    parser.add_argument("--runs", required=True, type=Path, metavar="DIR", help="folder of the runs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    options = parser.parse_args(argv)
    return program.run("sft.sweep", lambda: sweep(options))


def sweep(options: argparse.Namespace) -> int:
    """Train and compare the variants; return 0 where all of them are complete, else 1."""
    recipe = load_recipe(options.sweep, Sweep)
    variants = {name: recipe.variant(name) for name in recipe.variants}
    dataset = load_dataset(options.data, splits=("validation",))
    products = recipe.measured_on(dataset)
    comparison = Comparison(dataset)
    for number, (name, variant) in enumerate(variants.items(), start=1):
        print(f"sft.sweep: {name}, {number} of {len(variants)}", file=sys.stderr, flush=True)
        if _train(name, variant, options, products):
            comparison.add(name, variant, options.runs / name)
            _write(comparison.results(), options.out)
    if comparison.variants:
        print(options.out / "sweep.json")
    return 0 if len(comparison.variants) == len(variants) else 1


def _train(name: str, variant: Variant, options: argparse.Namespace, products: Sequence[Product]) -> bool:
    """Return whether the variant's run is complete, after training it where it was not."""
    run = options.runs / name
    # What each program writes last; a run of BERT is tagged with here, after it has ended.
    files = RunFiles(run)
    last = {"linear": files.metrics, "bert": run / TAGGINGS_FILE}.get(variant.program, files.manifest)
    if last.is_file():
        return True
    if variant.program == "linear":
        fit_linear(variant.recipe, options.data, run, products)
        return True
    if not files.manifest.is_file():
        options.runs.mkdir(parents=True, exist_ok=True)
        path = options.runs / f"{name}.yaml"
        path.write_text(yaml.safe_dump(variant.recipe, sort_keys=False), encoding="utf-8")
        resumed = ["--resume"] if files.recipe.is_file() else [str(path.resolve())]
        module = "sft.train_bert" if variant.program == "bert" else "sft.train"
        command = [sys.executable, "-m", module, *resumed]
        command += ["--data", str(options.data.resolve()), "--out", str(run.resolve())]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"sft.sweep: {name} failed; the others go on", file=sys.stderr, flush=True)
            return False
    if variant.program == "bert":
        tag_with_bert(run, products)
    return True


class Comparison:
    """Variants on the same validation products: the figures of each, and its differences to another."""

    def __init__(self, dataset: Dataset) -> None:
        self.variants: dict[str, dict[str, Any]] = {}
        self._dataset = dataset
        self._gold = {product.id: frozenset(product.tags or ()) for product in dataset.validation}
        self._ids: list[str] = []
        self._measured: dict[str, Resampled] = {}

    def add(self, name: str, variant: Variant, run: Path) -> None:
        """Measure the variant's run; `against` is None where that variant has failed or there is none.

        Raises RecipeError: its run has tagged other products than the first.
        """
        tagged = _tagged(run)
        self._ids = self._ids or list(tagged)
        if self._ids != list(tagged):
            raise RecipeError(f"variant {name!r}: measured on other products than the first; give both one seed")
        measured = _measured([self._gold[product_id] for product_id in tagged], list(tagged.values()))
        against: dict[str, Any] | None = None
        if variant.against in self._measured:
            changes = measured.exceeds(self._measured[variant.against])
            against = {"variant": variant.against} | {figure: asdict(change) for figure, change in changes.items()}
        self._measured[name] = measured
        trained = json.loads(RunFiles(run).metrics.read_text(encoding="utf-8"))
        self.variants[name] = {
            "program": variant.program,
            "recipe": variant.recipe,
            "num_train": trained["num_train"],
            "epochs": trained.get("epochs"),
            "samples_per_s": trained.get("since_start_or_resume", {}).get("samples_per_s"),
            **{figure: asdict(measured.estimate(figure)) for figure in measured.values},
            "against": against,
        }

    def results(self) -> dict[str, Any]:
        """Return what sweep.json holds: the variants so far, the data and where it all comes from."""
        from hangtag.manifest import provenance

        return {
            "data": {"folder": self._dataset.folder.name, "digest": self._dataset.digest},
            "num_products": len(self._ids),
            "variants": self.variants,
            "provenance": provenance(),
        }


def _tagged(run: Path) -> dict[str, frozenset[str]]:
    """Return the tags that a run gave to each validation product, by its id, in their order."""
    from hangtag.tagging import Tagging

    lines = (run / TAGGINGS_FILE).read_text(encoding="utf-8").splitlines()
    taggings = [Tagging.model_validate_json(line) for line in lines]
    return {tagging.id: frozenset(tagging.names) for tagging in taggings}


def _measured(gold: list[frozenset[str]], predicted: list[frozenset[str]]) -> Resampled:
    """Return exact match and set-F1, over resamples that are the same for every variant."""
    outcomes = metrics.Outcomes.from_sets(gold, predicted)
    return metrics.resample(metrics.bind(outcomes, metrics.exact_match, metrics.set_f1), len(gold))


def _write(results: dict[str, Any], out: Path) -> None:
    from hangtag.manifest import write_json

    write_json(out / "sweep.json", results)
    (out / "table.md").write_text(_table(results), encoding="utf-8")
    sizes = {variant["num_train"] for variant in results["variants"].values()}
    if len(sizes) > 1:
        _plot(results, out / "curve.svg")


def _table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['num_products']} validation products of {results['data']['folder']}; in brackets 95 % "
        "intervals, differences by paired bootstrap.",
        "",
    ]
    rows = []
    for name, variant in results["variants"].items():
        against = variant["against"]
        cells = [name, f"{variant['num_train']:,}", "" if variant["epochs"] is None else f"{variant['epochs']:g}"]
        cells += [interval(variant[figure]) for figure in ("exact_match", "set_f1")]
        if against:
            cells += [against["variant"], signed(against["exact_match"]), signed(against["set_f1"])]
        else:
            cells += ["", "", ""]
        rows.append(cells)
    lines += markdown_table(_COLUMNS, rows, right=("products learned from", "epochs"))
    return "\n".join(lines) + "\n"


def _plot(results: dict[str, Any], path: Path) -> None:
    """Draw set-F1 and exact match over the number of products learned from, a line a program."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 3.6))
    variants = sorted(results["variants"].values(), key=lambda variant: int(variant["num_train"]))
    for name, axes in zip(("set_f1", "exact_match"), panels, strict=True):
        for trainer, marker in zip(_RECIPES, "os^", strict=True):
            points = [variant for variant in variants if variant["program"] == trainer]
            if not points:
                continue
            sizes = [point["num_train"] for point in points]
            axes.plot(
                sizes, [point[name]["value"] for point in points], marker=marker, label=trainer.replace("_", " ")
            )
            axes.fill_between(
                sizes,
                [point[name]["low"] for point in points],
                [point[name]["high"] for point in points],
                alpha=0.2,
            )
        axes.set(xscale="log", xlabel="products learned from", ylabel=_LABELS[name])
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
