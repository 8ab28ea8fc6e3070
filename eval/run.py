"""Compare ways of tagging on the same products, and say how sure the comparison is.

    python -m eval.run
    python -m eval.run --data ../shared/data/hm --run runs/bert-hm --llm-limit 300 --out eval/out/hm

Without arguments it runs the sample catalogue through every arm that is there, offline, on a CPU, in minutes.

Output contract: --out gets results.json (all figures and their provenance), report.md, report.html (one file, for
a browser) and predictions/ (Parquet, from which `--rescore` computes all figures again without a model; and the
log of each arm, from which a stopped evaluation goes on when its command is repeated). The first line of stdout
says what the numbers stand for; the last is one JSON document. Progress goes to stderr. Exit codes: 0 done, 1 an
arm failed (the others are in the report), 2 misused.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.arms import Arm, ArmLoader, choose_arms, identity
from eval.predict import Predictions, content_hash, open_log, predict, slug
from eval.settings import PERTURBATIONS, Evaluation, split_names
from eval.store import FORMAT, Context, write_context, write_predictions, write_products
from hangtag import program
from hangtag.catalogue.labelled import Dataset, load_dataset
from hangtag.catalogue.options import add_reading_arguments, reading_options
from hangtag.config import load_recipe
from hangtag.errors import DataError, HangtagError, RecipeError, VocabularyError
from hangtag.formats.rows import Reading
from hangtag.manifest import provenance
from hangtag.product import Product
from hangtag.sample import sample_folder

OUT = Path(__file__).parent / "out"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)

    def work() -> int:
        if arguments.rescore:
            return rescore(arguments)
        command = " ".join(["python -m eval.run", *map(_shown, sys.argv[1:] if argv is None else argv)])
        return run(arguments, command)

    return program.run("eval.run", work, interrupted="interrupted; repeat the command to go on")


def _parser() -> argparse.ArgumentParser:
    parser = program.parser("python -m eval.run", __doc__)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="YAML of settings; options given here win")
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--data", metavar="D", help="a labelled dataset, or a file of labelled products (default: the sample)"
    )
    add_reading_arguments(parser)
    what.add_argument("--arms", metavar="A,B", help="arms, see eval/arms.py (default: every arm that is there)")
    what.add_argument(
        "--run", action="append", default=[], metavar="DIR", type=Path, help="a trained run as an arm; repeatable"
    )
    what.add_argument("--baseline", metavar="ARM", help="the arm that others are compared with (default: bert)")
    what.add_argument("--limit", type=int, metavar="N", help="a seeded sample of N test products (default: all)")
    what.add_argument(
        "--llm-limit",
        type=int,
        metavar="N",
        help="the same, for prompted language models only (default: --limit)",
    )
    what.add_argument(
        "--perturb",
        nargs="?",
        const=",".join(PERTURBATIONS),
        metavar="A,B",
        help=f"measure again under perturbed texts; without a value: {', '.join(PERTURBATIONS)}",
    )
    what.add_argument("--allow-unknown-gold", action="store_true", default=None, help="see docs/metrics.md")
    model = parser.add_argument_group("language models")
    model.add_argument("--model", metavar="M", help="the model of zero_shot and few_shot (default: smollm2-135m)")
    model.add_argument(
        "--engine", choices=("vllm", "transformers"), help="what runs it (default: vllm if installed)"
    )
    model.add_argument("--shots", type=int, metavar="K", help="examples in a few_shot prompt (default: 4)")
    model.add_argument(
        "--endpoint", metavar="URL", help="address of the http arm, such as http://127.0.0.1:8000/v1"
    )
    model.add_argument("--endpoint-model", metavar="NAME", help="the model's name at that address")
    how = parser.add_argument_group("how it is measured and reported")
    how.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: eval/out/<dataset>)")
    how.add_argument("--seed", type=int, metavar="S", help="of sample, perturbations and bootstrap (default: 0)")
    how.add_argument("--resamples", type=int, metavar="B", help="bootstrap resamples (default: 1000)")
    how.add_argument(
        "--rate", type=float, metavar="R", help="what an hour of this machine costs, for cost per 1,000 products"
    )
    how.add_argument(
        "--no-texts",
        dest="texts",
        action="store_false",
        default=None,
        help="keep texts and tags of single products out of results.json and the reports",
    )
    how.add_argument(
        "--rescore", type=Path, metavar="OUT", help="compute the figures of an OUT again, without models"
    )
    return parser


def _shown(argument: str) -> str:
    # Where a checkout lies on this machine is nobody's business.
    return shlex.quote(os.path.relpath(argument) if os.path.isabs(argument) else argument)


def run(arguments: argparse.Namespace, command: str) -> int:
    """Evaluate as the options say and return the exit code."""
    recipe = _recipe(arguments)
    dataset = _dataset(arguments.data, recipe, reading_options(arguments))
    runs = tuple(arguments.run)
    arms, missing = choose_arms(recipe, runs, dataset)
    out = arguments.out or OUT / (dataset.folder.resolve().name if arguments.data else "sample")
    job = _Job(recipe, dataset, arms, missing, out, command, is_sample=not arguments.data)
    print(job.note, flush=True)
    for name, reason in missing.items():
        print(f"arm {name} is not there: {reason}", flush=True)
    with _locked(out):
        failed = job.predict()
        return _report(out, failed)


def rescore(arguments: argparse.Namespace) -> int:
    """Compute all figures again from the predictions in a results folder, and return the exit code."""
    others = {
        name for name, value in vars(arguments).items() if value not in (None, []) and name not in ("rescore",)
    }
    if others - {"resamples", "baseline", "rate", "texts"}:
        raise RecipeError(
            "--rescore takes its settings from the folder; only --baseline, --resamples, --rate and --no-texts "
            f"may be given beside it, got --{min(others).replace('_', '-')}"
        )
    from eval.store import read_context

    out: Path = arguments.rescore
    context = read_context(out)
    changes = {name: getattr(arguments, name) for name in ("resamples", "baseline", "rate", "texts")}
    recipe = load_recipe(None, Evaluation, context.recipe.model_dump() | _given(changes))
    with _locked(out):
        write_context(out, replace(context, recipe=recipe))
        return _report(out, context.failed)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _recipe(arguments: argparse.Namespace) -> Evaluation:
    names = ("baseline", "limit", "llm_limit", "model", "engine", "shots", "seed", "resamples", "rate", "texts")
    overrides = {name: getattr(arguments, name) for name in (*names, "allow_unknown_gold")}
    overrides |= {
        name: split_names(getattr(arguments, name))
        for name in ("arms", "perturb")
        if getattr(arguments, name) is not None
    }
    if bool(arguments.endpoint) != bool(arguments.endpoint_model):
        raise RecipeError("--endpoint and --endpoint-model belong together; give both")
    if arguments.endpoint:
        overrides["http"] = {"url": arguments.endpoint, "model": arguments.endpoint_model}
    return load_recipe(arguments.recipe, Evaluation, overrides)


def _dataset(folder: str | None, recipe: Evaluation, reading: Reading) -> Dataset:
    """Return the dataset with the limits that its training data keep.

    Raises:
        DataError: a split is missing, or the test split is empty or names a product twice.
        VocabularyError: gold tags are unknown, and that was not allowed.
    """
    dataset = load_dataset(
        folder or sample_folder(), reading=reading, say=lambda line: print(f"eval.run: {line}", file=sys.stderr)
    )
    twice = [name for name, number in Counter(product.id for product in dataset.test).items() if number > 1]
    if twice:
        raise DataError(f"{dataset.folder}: test holds product {twice[0]!r} more than once; ids must differ")
    products = (*dataset.train, *dataset.validation, *dataset.test)
    unknown = Counter(tag for product in products for tag in product.tags or () if tag not in dataset.vocabulary)
    if unknown and not recipe.allow_unknown_gold:
        shown = ", ".join(f"{tag!r} ({number} times)" for tag, number in unknown.most_common(10))
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise VocabularyError(
            f"{dataset.folder}: vocabulary.json lacks {len(unknown)} gold tags: {shown}{more}; add them, or "
            "accept with --allow-unknown-gold that every arm misses them"
        )
    vocabulary = dataset.vocabulary.with_some_limits(product.tags or () for product in dataset.train)
    dataset = replace(dataset, vocabulary=vocabulary)
    if not unknown:
        return dataset

    # No arm can be trained towards a tag that it may not give; the test split keeps its gold.
    def with_known_tags(products: tuple[Product, ...]) -> tuple[Product, ...]:
        return tuple(
            product.model_copy(update={"tags": tuple(tag for tag in product.tags or () if tag in vocabulary)})
            for product in products
        )

    return replace(dataset, train=with_known_tags(dataset.train), validation=with_known_tags(dataset.validation))


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / ".lock").open("w")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out}: another evaluation is writing there; wait, or choose another --out") from None
        yield


def _report(out: Path, failed: dict[str, str]) -> int:
    from eval.render import summary, write_reports
    from eval.score import score

    results = score(out)
    write_reports(out, results)
    print(summary(results))
    for name, reason in failed.items():
        print(f"eval.run: arm {name} failed: {reason}", file=sys.stderr)
    print(
        json.dumps(
            {"results": f"{_shown(str(out))}/results.json", "arms": list(results["arms"]), "failed": list(failed)}
        )
    )
    return 1 if failed else 0


@dataclass(frozen=True)
class _Job:
    """The predictions that an evaluation needs: every arm, plain and under each perturbation."""

    recipe: Evaluation
    dataset: Dataset
    arms: list[Arm]
    missing: dict[str, str]
    out: Path
    command: str
    is_sample: bool

    @property
    def note(self) -> str:
        """One line that says what the numbers stand for."""
        number, size = len(self.positions(self.recipe.limit)), len(self.dataset.test)
        sampled = "" if number == size else f", a sample of {number} drawn with seed {self.recipe.seed}"
        if self.is_sample:
            return (
                f"Sample catalogue of {size} test products{sampled}: a smoke measure, which shows that everything "
                "works and not how good a tagger is."
            )
        return f"{self.dataset.folder.resolve().name}: {size} test products{sampled}."

    def positions(self, limit: int | None) -> list[int]:
        """Return the positions of the evaluated test products; a smaller limit gives a part of a larger one's."""
        order = list(range(len(self.dataset.test)))
        random.Random(self.recipe.seed).shuffle(order)
        return sorted(order[:limit])

    def predict(self) -> dict[str, str]:
        """Fill the results folder with predictions, and return why arms failed, by name."""
        recipe = self.recipe
        folder = self.out / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        write_products(self.out, self.dataset, self.positions(recipe.limit), texts=recipe.texts)
        loader = ArmLoader(recipe, self.dataset, self.out / "runs")
        failed: dict[str, str] = {}
        identities = {}
        start = time.monotonic()
        for arm in self.arms:
            for stale in folder.glob(f"{slug(arm.name)}.*parquet"):
                stale.unlink()
            try:
                identities[arm.name] = self._predict_arm(arm, loader)
            except HangtagError as error:
                failed[arm.name] = str(error)
            except Exception as error:
                # Whatever a foreign library throws ends its own arm only.
                failed[arm.name] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        context = Context(
            format=FORMAT,
            note=self.note,
            command=self.command,
            recipe=recipe,
            dataset={
                "name": "sample" if self.is_sample else self.dataset.folder.resolve().name,
                "digest": self.dataset.digest,
                "num_train": len(self.dataset.train),
                "num_validation": len(self.dataset.validation),
                "num_test": len(self.dataset.test),
            },
            vocabulary=self.dataset.vocabulary,
            train_counts=Counter(tag for product in self.dataset.train for tag in product.tags or ()),
            arms=identities,
            missing=self.missing,
            failed=failed,
            provenance=provenance(),
            seconds=time.monotonic() - start,
        )
        write_context(self.out, context)
        return failed

    def _predict_arm(self, arm: Arm, loader: ArmLoader) -> dict[str, Any]:
        recipe = self.recipe
        described = identity(arm, recipe, self.dataset)
        limits = [n for n in (recipe.limit, recipe.llm_limit if arm.is_prompted else None) if n is not None]
        products = [self.dataset.test[p] for p in self.positions(min(limits, default=None))]
        variants = {None: products} | {kind: self._perturbed(products, kind) for kind in recipe.perturb}
        contestants: list[Any] = []

        def load() -> Any:
            if not contestants:
                contestants.append(loader.load(arm))
            return contestants[0]

        with program.progress(arm.name, "product", total=len(products) * len(variants)) as bar:
            for kind, variant in variants.items():
                done = self._predict_variant(arm, described, kind, variant, load, bar)
                changed = [a != b for a, b in zip(products, variant, strict=True)]
                write_predictions(self.out, arm.name, kind, done, changed if kind else None)
        return described

    def _perturbed(self, products: Sequence[Product], kind: Any) -> list[Product]:
        from eval.perturb import perturb

        seed, vocabulary = self.recipe.seed, self.dataset.vocabulary
        return [perturb(product, kind, seed=seed, vocabulary=vocabulary) for product in products]

    def _predict_variant(
        self,
        arm: Arm,
        described: dict[str, Any],
        kind: str | None,
        products: Sequence[Product],
        load: Any,
        bar: Any,
    ) -> Predictions:
        content = {
            **described,
            "data": self.dataset.digest,
            "vocabulary": self.dataset.vocabulary.fingerprint,
            "limits": {name: limits.model_dump() for name, limits in self.dataset.vocabulary.facets.items()},
            "products": content_hash([product.model_dump(mode="json") for product in products]),
            "perturbation": kind,
        }
        name = slug(arm.name) + (f".{kind}" if kind else "")
        log = open_log(self.out / "predictions" / f"{name}-{content_hash(content)}.jsonl", content)
        return predict(log, products, load, batch_size=arm.batch_size, advance=bar.update)


if __name__ == "__main__":
    sys.exit(main())
