"""Measures the import of a large taxonomy, in several formats; and makes that taxonomy.

    python -m bench taxonomy
    python -m bench taxonomy --categories 30000 --write DIR --out FILE

The taxonomy is invented: departments, groups, kinds, audiences and, as the fifth level, names that occur under
hundreds of parents ("Accessories"). Each format is imported by `hangtag.taxonomies.importing.import_taxonomy`, in
a process of its own, from the file to a saved vocabulary; the interpreter's start does not count.

The table goes to stderr; the last line of stdout is one JSON document with provenance, which --out also writes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hangtag.errors import RecipeError
from hangtag.manifest import provenance, write_json

DEPARTMENTS = (
    "Apparel", "Home & Kitchen", "Sports & Outdoors", "Toys & Games", "Garden", "Office", "Pets", "Baby", "Beauty",
    "Travel", "Music", "Workshop",
)  # fmt: skip
AUDIENCES = ("Adults", "Children", "Professionals")
LEAVES = (
    "Accessories", "Spare Parts", "Sets", "Gift Boxes", "Care", "Storage", "Bags", "Covers", "Refills", "Patterns",
)  # fmt: skip
GROUPS, KINDS = 8, 10
Path5 = tuple[str, ...]


def made_taxonomy(num_categories: int, *, seed: int = 0) -> list[Path5]:
    """Return the paths of an invented taxonomy of five levels, parents before children; deterministic.

    Raises:
        RecipeError: the number is below 4,000 or above 32,000.
    """
    if not 4_000 <= num_categories <= 32_000:
        raise RecipeError(f"{num_categories} categories; expected 4000 to 32000")
    draw = random.Random(seed)
    document = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
    things, materials = (document[kind].split() for kind in ("things", "materials"))
    branches: list[Path5] = []
    for department in DEPARTMENTS:
        branches.append((department,))
        for first, second in zip(*[iter(draw.sample(things, 2 * GROUPS))] * 2, strict=True):
            group = (department, f"{first.capitalize()} & {second.capitalize()}")
            branches.append(group)
            for material in draw.sample(materials, KINDS):
                kind = (*group, f"{material.capitalize()} {draw.choice((first, second)).capitalize()}")
                branches += [kind, *((*kind, audience) for audience in AUDIENCES)]
    deepest = [path for path in branches if len(path) == 4]
    each, more = divmod(num_categories - len(branches), len(deepest))
    leaves: dict[Path5, list[Path5]] = {
        path: [(*path, name) for name in draw.sample(LEAVES, each + (number < more))]
        for number, path in enumerate(deepest)
    }
    return [category for path in branches for category in (path, *leaves.get(path, ()))]


def write_formats(paths: Sequence[Path5], folder: Path) -> list[Path]:
    """Write the taxonomy as Google's list with ids, Shopify's, a table of levels, and SKOS; return the files."""
    ids = {path: number for number, path in enumerate(paths, start=1)}
    texts = {
        "google.txt": [
            "# Google_Product_Taxonomy_Version: 2026-01-01",
            *(f"{ids[path]} - {' > '.join(path)}" for path in paths),
        ],
        "shopify.txt": [f"gid://shopify/TaxonomyCategory/{ids[path]} : {' > '.join(path)}" for path in paths],
        "levels.csv": ["id,Level 1,Level 2,Level 3,Level 4,Level 5"]
        + [",".join([str(ids[path]), *path, *[""] * (5 - len(path))]) for path in paths],
        "skos.ttl": [*_turtle(ids)],
    }
    for name, lines in texts.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in texts]


def _turtle(ids: dict[Path5, int]) -> Iterator[str]:
    yield "@prefix skos: <http://www.w3.org/2004/02/skos/core#> ."
    yield "@prefix : <http://shop.example/> ."
    for path, number in ids.items():
        broader = f" ; skos:broader :c{ids[path[:-1]]:05}" if len(path) > 1 else ""
        yield f':c{number:05} a skos:Concept ; skos:prefLabel "{path[-1]}"@en{broader} .'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options."""
    parser.add_argument(
        "--categories", type=int, default=11_000, metavar="N", help="categories to make (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the names (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the files here")
    parser.add_argument("--out", type=Path, metavar="F", help="also write the JSON document here")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write; return the exit code."""
    paths = made_taxonomy(arguments.categories, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.write or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        results = []
        for file in write_formats(paths, folder):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                num_tags, seconds = pool.apply(_import_seconds, (file, Path(scratch) / "tags.json"))
            print(f"{file.name:<12} {num_tags:>7} tags {seconds:>7.2f} s", file=sys.stderr)
            results.append({"format": file.name, "num_tags": num_tags, "seconds": round(seconds, 3)})
    document = {
        "benchmark": "taxonomy",
        "settings": {"categories": arguments.categories, "seed": arguments.seed},
        "results": results,
        "provenance": provenance(),
    }
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, ensure_ascii=False))
    return 0


def _import_seconds(file: Path, out: Path) -> tuple[int, float]:
    from hangtag.taxonomies.importing import import_taxonomy

    start = time.perf_counter()
    vocabulary = import_taxonomy(file).vocabulary
    vocabulary.save(out)
    return len(vocabulary), time.perf_counter() - start
