"""Turn labelled products into instruction pairs, and report what there is to learn from.

    python -m sft.prepare --data ../shared/data/hm --out out/pairs
    python -m sft.prepare sft/recipes/smollm2_qlora.yaml --data DIR --out out/pairs

Writes train.parquet and validation.parquet (id, prompt and answer in token ids, tags in the answer's order,
whether text was cut), the tokenizer and the vocabulary that they belong to, and report.json: lengths, cuts, tags
by facet, products that stand in both splits, texts that carry different labels. `sft.train` makes the very same
pairs by itself; this program is for looking at them and for other trainers. It streams: memory does not grow with
the pairs but for 16 bytes each. The last line of stdout is the report as JSON. Exit codes: 0 done, 1 failed,
2 misused.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hangtag import program
from hangtag.catalogue.labelled import dataset_vocabulary, read_split
from hangtag.catalogue.options import add_reading_arguments, reading_options
from hangtag.errors import DataError, MissingExtra
from hangtag.formats.rows import Reading
from hangtag.product import Product
from sft.labelled import check_labels
from sft.recipe import TRAINER_DEFAULTS, TrainRecipe

_BATCH = 256
_SHOWN = 20
_SPLITS = ("train", "validation")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the pairs and return the exit code."""
    parser = program.parser("python -m sft.prepare", __doc__)
    parser.add_argument("recipe", nargs="?", help="YAML file, see sft/recipe.py (default: SmolLM2's defaults)")
    parser.add_argument(
        "--data", required=True, type=Path, metavar="D", help="labelled dataset, or a file of labelled products"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    add_reading_arguments(parser)
    options = parser.parse_args(argv)
    from hangtag.config import load_recipe
    from hangtag.loading import DEFAULT_MODEL

    def work() -> int:
        recipe = load_recipe(options.recipe, TrainRecipe, None if options.recipe else {"model": DEFAULT_MODEL})
        print(json.dumps(prepare(recipe, options.data, options.out, reading_options(options)), ensure_ascii=False))
        return 0

    return program.run("sft.prepare", work)


def prepare(recipe: TrainRecipe, data: Path, out: Path, reading: Reading | None = None) -> dict[str, Any]:
    """Write pairs and report into `out`; return the report."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtra("transformers", "train") from None
    from hangtag.manifest import write_json
    from sft.language_model import load_tokenizer
    from sft.pairs import PairMaker, TagOrder, answer_settings

    vocabulary = dataset_vocabulary(
        data, reading=reading, say=lambda line: print(f"sft.prepare: {line}", file=sys.stderr)
    )
    products = partial(read_split, data, reading=reading)
    counts, largest = _survey(data, products("train"), vocabulary)
    vocabulary = vocabulary.with_some_limits(product.tags or () for product in products("train"))
    out.mkdir(parents=True, exist_ok=True)
    vocabulary.save(out / "vocabulary.json")
    tokenizer, _ = load_tokenizer(recipe, vocabulary, out / "tokenizer")
    maker = PairMaker(
        tokenizer,
        vocabulary,
        answer_settings(recipe, [largest], vocabulary, tokenizer),
        template=recipe.template,
        order=TagOrder(recipe.order, vocabulary, counts),
        augmentation=recipe.augment,
        seed=(TRAINER_DEFAULTS | recipe.trainer)["seed"],
    )
    surveys = {split: _Survey() for split in _SPLITS}
    for split, survey in surveys.items():
        _write_split(maker, products(split), out / f"{split}.parquet", survey)
    train, validation = surveys["train"], surveys["validation"]
    report = {
        "model": recipe.model,
        "answer": recipe.answer,
        "order": recipe.order,
        "splits": {split: survey.figures() for split, survey in surveys.items()},
        "over_limit": maker.num_over_limit,
        "tags_without_a_training_product": [name for name in vocabulary.names if not counts[name]],
        "tags_by_facet": {
            facet: sum(counts[name] for name in vocabulary.in_facet(facet)) for facet in vocabulary.facet_names
        },
        "texts_in_both_splits": int(np.isin(validation.texts, train.texts).sum()),
        "suspected_label_errors": _contradictions(train, products("train")),
    }
    write_json(out / "report.json", report)
    return report


def _survey(data: Path, products: Iterable[Product], vocabulary: Any) -> tuple[Counter[str], Product]:
    """Return how many training products hold each tag, and a product that holds the most.

    Raises:
        DataError: there is no training product.
        VocabularyError: labels are not in the vocabulary.
    """
    counts: Counter[str] = Counter()
    largest: Product | None = None
    for product in products:
        counts.update(product.tags or ())
        if largest is None or len(product.tags or ()) > len(largest.tags or ()):
            largest = product
    if largest is None:
        raise DataError(f"{data}: train holds no product")
    check_labels(counts, vocabulary, data)
    return counts, largest


class _Survey:
    """What is counted of a split while it streams by."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()
        self.num_cut = 0
        self._texts, self._labels = array("Q"), array("Q")

    def add(self, product: Product, pair: Any) -> None:
        self.lengths[len(pair.prompt) + len(pair.answer)] += 1
        self.answers[len(pair.answer)] += 1
        self.num_cut += pair.is_cut
        self._texts.append(_hash(product.text))
        self._labels.append(_hash("\n".join(sorted(product.tags or ()))))

    @property
    def texts(self) -> Any:
        return np.frombuffer(self._texts, np.uint64) if self._texts else np.zeros(0, np.uint64)

    @property
    def labels(self) -> Any:
        return np.frombuffer(self._labels, np.uint64) if self._labels else np.zeros(0, np.uint64)

    def figures(self) -> dict[str, Any]:
        number = sum(self.lengths.values())
        return {
            "num_pairs": number,
            "tokens": _percentiles(self.lengths),
            "answer_tokens": _percentiles(self.answers),
            "cut_share": round(self.num_cut / number, 4) if number else 0.0,
            "repeated_texts": int(number - len(np.unique(self.texts))),
        }


def _write_split(maker: Any, products: Iterable[Product], path: Path, survey: _Survey) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.list_(pa.int32())
    schema = pa.schema(
        {"id": pa.string(), "prompt": ids, "answer": ids, "tags": pa.list_(pa.string()), "is_cut": pa.bool_()}
    )
    waiting = iter(products)
    with (
        pq.ParquetWriter(path, schema) as writer,
        program.progress(path.stem, "pair") as progress,
    ):
        while batch := list(islice(waiting, _BATCH)):
            pairs = maker.pairs(batch)
            for product, pair in zip(batch, pairs, strict=True):
                survey.add(product, pair)
            columns = {
                "id": [product.id for product in batch],
                "prompt": [pair.prompt for pair in pairs],
                "answer": [pair.answer for pair in pairs],
                "tags": [list(pair.tags) for pair in pairs],
                "is_cut": [pair.is_cut for pair in pairs],
            }
            writer.write_table(pa.table(columns, schema=schema))
            progress.update(len(batch))


def _contradictions(survey: _Survey, products: Iterable[Product]) -> dict[str, Any]:
    """Return how many texts stand with different labels, how many products have such a text, and some of them."""
    texts, inverse, counts = np.unique(survey.texts, return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([inverse.astype(np.uint64), survey.labels], axis=1), axis=0)
    num_labels = np.bincount(pairs[:, 0].astype(np.intp), minlength=len(texts))
    doubtful = num_labels > 1
    rows = np.flatnonzero(doubtful[inverse])
    shown = set(rows[:_SHOWN].tolist())
    last = max(shown, default=-1)
    examples = [
        {"id": product.id, "tags": list(product.tags or ())}
        for at, product in enumerate(islice(products, last + 1))
        if at in shown
    ]
    return {"texts": int(doubtful.sum()), "products": int(counts[doubtful].sum()), "examples": examples}


def _percentiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the 50th, 90th and 99th percentile and the maximum of counted lengths."""
    if not lengths:
        return {}
    values = np.array(sorted(lengths))
    reached = np.cumsum([lengths[value] for value in values.tolist()])
    at = {f"p{share}": int(values[np.searchsorted(reached, share / 100 * reached[-1])]) for share in (50, 90, 99)}
    return at | {"max": int(values[-1])}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


if __name__ == "__main__":
    sys.exit(main())
