"""The results folder: what is predicted, of what, and under which settings; enough to compute every figure.

OUT/predictions/context.json          settings, vocabulary, training counts, provenance
OUT/predictions/products.parquet      the test products that any arm saw, with gold
OUT/predictions/ARM.parquet           taggings of an arm; its batches are in the file's metadata
OUT/predictions/ARM.PERTURBATION.parquet
OUT/predictions/ARM-HASH.jsonl        the log that `eval.predict` continues
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.predict import Batch, Predictions, slug
from eval.settings import Evaluation
from hangtag.catalogue.labelled import Dataset
from hangtag.config import load_recipe
from hangtag.errors import DataError
from hangtag.manifest import write_json
from hangtag.metrics import Confidences, Figure, Outcomes, Resampled, is_chinese, resample
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

FORMAT = 1


@dataclass(frozen=True)
class Context:
    """What an evaluation was made of, predictions excepted. `arms` maps each finished arm to its identity."""

    format: int
    note: str
    command: str
    recipe: Evaluation
    dataset: dict[str, Any]
    vocabulary: TagVocabulary
    train_counts: Mapping[str, int]
    arms: dict[str, dict[str, Any]]
    missing: dict[str, str]
    failed: dict[str, str]
    provenance: dict[str, Any]
    seconds: float

    def resample(self, figures: Mapping[str, Figure], num_products: int) -> Resampled:
        """Return figures over products and over the resamples that the recipe asks for."""
        return resample(figures, num_products, num_resamples=self.recipe.resamples, seed=self.recipe.seed)


@dataclass(frozen=True)
class TestProduct:
    """A test product: gold, whether its tag set never occurs in train, its language, and its text if kept."""

    __test__ = False  # Not a test case, whatever pytest makes of the name.

    id: str
    gold: frozenset[str]
    is_unseen: bool
    is_chinese: bool
    text: str


@dataclass
class ArmPredictions:
    """The taggings of one arm, aligned with the ids of its products, and what they took."""

    ids: list[str]
    taggings: list[Tagging]
    batches: list[Batch]
    setup_seconds: float
    changed: list[bool] | None = field(default=None)
    """Under a perturbation: whether it changed each product."""

    def outcomes(self, products: Mapping[str, TestProduct], vocabulary: TagVocabulary) -> Outcomes:
        """Return the taggings against gold; a tag that is unknown or repeated is left out and counted."""
        known = [[tag for tag in tagging.names if tag in vocabulary] for tagging in self.taggings]
        return Outcomes.from_sets(
            [products[name].gold for name in self.ids],
            [
                frozenset(tags) if tagging.status == "ok" else None
                for tags, tagging in zip(known, self.taggings, strict=True)
            ],
            [
                sum(tagging.violations.values()) + len(tagging.names) - len(set(tags))
                if tagging.status == "ok"
                else 0
                for tags, tagging in zip(known, self.taggings, strict=True)
            ],
        )

    def only(self, ids: Sequence[str]) -> ArmPredictions:
        """Return the taggings of the products `ids`, in their order; what they took stays behind."""
        taggings = {tagging.id: tagging for tagging in self.taggings}
        return ArmPredictions(list(ids), [taggings[product_id] for product_id in ids], [], 0.0)

    def confidences(self, products: Mapping[str, TestProduct]) -> Confidences:
        """Return the confidences of the predicted tags that carry one."""
        return Confidences.from_scores(
            [products[name].gold for name in self.ids],
            [
                {tag.tag: tag.confidence for tag in tagging.tags if tag.confidence is not None}
                for tagging in self.taggings
            ],
        )


def write_context(out: Path, context: Context) -> None:
    """Write context.json, atomically."""
    document = {name: getattr(context, name) for name in Context.__dataclass_fields__}
    document |= {
        "recipe": context.recipe.model_dump(mode="json"),
        "vocabulary": context.vocabulary.to_json(),
        "train_counts": dict(context.train_counts),
    }
    write_json(out / "predictions" / "context.json", document)


def read_context(out: Path) -> Context:
    """Return what `write_context` wrote.

    Raises:
        DataError: there is no such file, or it is of another format.
    """
    path = out / "predictions" / "context.json"
    if not path.is_file():
        raise DataError(f"{out}: no predictions/context.json; expected a results folder of eval.run")
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise DataError(f"{path}: format {document['format']}, expected {FORMAT}; run the evaluation again")
        document["recipe"] = load_recipe(None, Evaluation, document["recipe"])
        document["vocabulary"] = TagVocabulary.from_json(document["vocabulary"])
        return Context(**document)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a context of eval.run ({error}); run the evaluation again") from None


def write_products(out: Path, dataset: Dataset, positions: Sequence[int], *, texts: bool) -> None:
    """Write the evaluated test products; without `texts`, their texts are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    seen = {frozenset(product.tags or ()) for product in dataset.train}
    chosen = [dataset.test[position] for position in positions]
    table = pa.table(
        {
            "id": [product.id for product in chosen],
            "gold": pa.array([list(product.tags or ()) for product in chosen], pa.list_(pa.string())),
            "is_unseen": [frozenset(product.tags or ()) not in seen for product in chosen],
            "is_chinese": [is_chinese(product.text) for product in chosen],
            "text": [product.text if texts else "" for product in chosen],
        }
    )
    pq.write_table(table, out / "predictions" / "products.parquet")


def read_products(out: Path) -> dict[str, TestProduct]:
    """Return the evaluated test products by id. Raises DataError: the file is missing or damaged."""
    return {
        row["id"]: TestProduct(**row | {"gold": frozenset(row["gold"])})
        for row in _read_table(out / "predictions" / "products.parquet").to_pylist()
    }


def write_predictions(
    out: Path, arm: str, perturbation: str | None, done: Predictions, changed: Sequence[bool] | None
) -> None:
    """Write the taggings of an arm, plain or under a perturbation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tag = pa.struct([("tag", pa.string()), ("facet", pa.string()), ("confidence", pa.float64())])
    columns = {
        "id": pa.array([tagging.id for tagging in done.taggings], pa.string()),
        "tags": pa.array([[tag.model_dump() for tag in t.tags] for t in done.taggings], pa.list_(tag)),
        "status": pa.array([tagging.status for tagging in done.taggings], pa.string()),
        "reason": pa.array([tagging.reason for tagging in done.taggings], pa.string()),
        "violations": pa.array(
            [list(tagging.violations.items()) for tagging in done.taggings], pa.map_(pa.string(), pa.int64())
        ),
        "model": pa.array([tagging.model for tagging in done.taggings], pa.string()),
        "vocabulary": pa.array([tagging.vocabulary for tagging in done.taggings], pa.string()),
        "changed": pa.array(changed if changed is not None else [None] * len(done.taggings), pa.bool_()),
    }
    about = {"setup_seconds": done.setup_seconds, "batches": [asdict(batch) for batch in done.batches]}
    table = pa.table(columns).replace_schema_metadata({"hangtag": json.dumps(about)})
    pq.write_table(table, _predictions_path(out, arm, perturbation))


def has_predictions(out: Path, arm: str) -> bool:
    """Return whether the unperturbed predictions of an arm are there."""
    return _predictions_path(out, arm, None).is_file()


def read_predictions(out: Path, arm: str, perturbation: str | None = None) -> ArmPredictions:
    """Return what `write_predictions` wrote. Raises DataError: the file is missing or damaged."""
    path = _predictions_path(out, arm, perturbation)
    table = _read_table(path)
    rows = table.to_pylist()
    try:
        about = json.loads(table.schema.metadata[b"hangtag"])
        changed = [row.pop("changed") for row in rows]
        taggings = [Tagging.model_validate(row | {"violations": dict(row["violations"])}) for row in rows]
        return ArmPredictions(
            ids=[tagging.id for tagging in taggings],
            taggings=taggings,
            batches=[Batch(**batch) for batch in about["batches"]],
            setup_seconds=about["setup_seconds"],
            changed=changed if perturbation else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not predictions of eval.run ({error})") from None


def _predictions_path(out: Path, arm: str, perturbation: str | None) -> Path:
    return out / "predictions" / (slug(arm) + (f".{perturbation}" if perturbation else "") + ".parquet")


def _read_table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]:.200})") from None
