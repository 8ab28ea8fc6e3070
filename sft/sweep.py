"""Train variants of a recipe and compare them: what a setting does, with an interval.

    python -m sft.sweep sft/recipes/sweep_hm.yaml --data ../shared/data/hm --runs runs/hm --out out/sweep_hm

Each variant is a run of `sft.train` in RUNS/NAME; those that are complete are kept, one that was stopped is
resumed, so the same command goes on after a kill. All are measured on the same validation products; differences to
the first variant come with a 95 % interval by paired bootstrap. Writes OUT/results.json, OUT/table.md and, where
variants differ in the number of products, OUT/curve.svg. The last line of stdout is the path of results.json. Exit
codes: 0 done, 1 a variant failed, 2 misused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from hangtag.config import Recipe, load_recipe
from hangtag.errors import HangtagError, RecipeError
from sft.recipe import TrainRecipe
from sft.run_directory import TAGGINGS_FILE

ROOT = Path(__file__).resolve().parents[1]


class Sweep(Recipe):
    """What is varied."""

    base: dict[str, Any]
    """The recipe that all variants share, see `TrainRecipe`."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    """Departures from it by name; `trainer` is merged key by key. The first is what others are compared with."""

    def recipe(self, name: str) -> dict[str, Any]:
        """Return a variant's whole recipe. Raises RecipeError: it is none."""
        changes = self.variants[name]
        whole = self.base | changes
        whole["trainer"] = self.base.get("trainer", {}) | changes.get("trainer", {})
        try:
            load_recipe(None, TrainRecipe, whole)
        except RecipeError as error:
            raise RecipeError(f"variant {name!r}: {error}") from None
        return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, compare, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sft.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", help="YAML file with `base` and `variants`")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="labelled dataset")
    parser.add_argument("--runs", required=True, type=Path, metavar="DIR", help="folder of the runs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    options = parser.parse_args(argv)
    try:
        sweep = load_recipe(options.sweep, Sweep)
        recipes = {name: sweep.recipe(name) for name in sweep.variants}
        failed = [name for name, recipe in recipes.items() if not _train(name, recipe, options)]
        done = {name: recipe for name, recipe in recipes.items() if name not in failed}
        if done:
            _write(compare(done, options.data, options.runs), options.out)
            print(options.out / "results.json")
    except HangtagError as error:
        print(f"sft.sweep: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


def _train(name: str, recipe: dict[str, Any], options: argparse.Namespace) -> bool:
    """Return whether the variant's run is complete, after training it where it was not."""
    run = options.runs / name
    if (run / "manifest.json").is_file():
        return True
    options.runs.mkdir(parents=True, exist_ok=True)
    path = options.runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    resumed = ["--resume"] if (run / "recipe.yaml").is_file() else [str(path.resolve())]
    print(f"sft.sweep: training {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "sft.train", *resumed]
    command += ["--data", str(options.data.resolve()), "--out", str(run.resolve())]
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
        print(f"sft.sweep: {name} failed; the others go on", file=sys.stderr, flush=True)
        return False
    return True


def compare(recipes: dict[str, dict[str, Any]], data: Path, runs: Path) -> dict[str, Any]:
    """Return each variant's figures and its differences to the first one, on the same validation products."""
    from hangtag import metrics
    from hangtag.catalog import load_dataset
    from hangtag.manifest import provenance
    from hangtag.tagging import Tagging

    dataset = load_dataset(data, splits=("validation",))
    gold = {product.id: frozenset(product.tags or ()) for product in dataset.validation}
    first: dict[str, Any] = {}
    variants = {}
    for name, recipe in recipes.items():
        lines = (runs / name / TAGGINGS_FILE).read_text(encoding="utf-8").splitlines()
        taggings = [Tagging.model_validate_json(line) for line in lines]
        ids = [tagging.id for tagging in taggings]
        if first and ids != first["ids"]:
            raise RecipeError(f"variant {name!r}: measured on other products than the first; give both one seed")
        outcomes = metrics.Outcomes.from_sets(
            [gold[product_id] for product_id in ids], [frozenset(tagging.names) for tagging in taggings]
        )

        def figures(weights: Any, outcomes: Any = outcomes) -> dict[str, Any]:
            return {
                "exact_match": metrics.exact_match(outcomes, weights),
                "set_f1": metrics.set_f1(outcomes, weights),
            }

        values = {figure: float(value) for figure, value in figures(None).items()}
        draws = metrics.draw(figures, len(ids))
        first = first or {"ids": ids, "values": values, "draws": draws}
        trained = json.loads((runs / name / "metrics.json").read_text(encoding="utf-8"))
        variants[name] = {
            "recipe": recipe,
            "num_train": trained["num_train"],
            "epochs": trained["epochs"],
            "samples_per_s": trained["since_start_or_resume"]["samples_per_s"],
            **{figure: asdict(metrics.estimate(values[figure], draws[figure])) for figure in values},
            "against_first": {
                figure: asdict(
                    metrics.difference(
                        values[figure] - first["values"][figure], draws[figure] - first["draws"][figure]
                    )
                )
                for figure in values
            },
        }
    return {
        "data": {"folder": dataset.folder.name, "digest": dataset.digest},
        "num_products": len(first["ids"]),
        "variants": variants,
        "provenance": provenance(),
    }


def _write(results: dict[str, Any], out: Path) -> None:
    from hangtag.manifest import write_json

    write_json(out / "results.json", results)
    (out / "table.md").write_text(_table(results), encoding="utf-8")
    sizes = {variant["num_train"] for variant in results["variants"].values()}
    if len(sizes) > 1:
        _plot(results, out / "curve.svg")


def _table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['num_products']} validation products of {results['data']['folder']}; in brackets 95 % "
        "intervals, differences by paired bootstrap to the first line.",
        "",
        "| variant | products learned from | epochs | exact match | difference | set-F1 | difference |",
        "| --- | ---: | ---: | --- | --- | --- | --- |",
    ]
    for number, (name, variant) in enumerate(results["variants"].items()):
        cells = [name, f"{variant['num_train']:,}", f"{variant['epochs']:g}"]
        for figure in ("exact_match", "set_f1"):
            value, change = variant[figure], variant["against_first"][figure]
            cells.append(f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
            cells.append(f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]" if number else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plot(results: dict[str, Any], path: Path) -> None:
    """Draw set-F1 and exact match over the number of products learned from."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.4))
    points = sorted(results["variants"].values(), key=lambda variant: int(variant["num_train"]))
    sizes = [point["num_train"] for point in points]
    for name, marker in (("set_f1", "o"), ("exact_match", "s")):
        axes.plot(sizes, [point[name]["value"] for point in points], marker=marker, label=name.replace("_", " "))
        axes.fill_between(
            sizes, [point[name]["low"] for point in points], [point[name]["high"] for point in points], alpha=0.2
        )
    axes.set(xscale="log", xlabel="products learned from", ylim=(0, 1))
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
