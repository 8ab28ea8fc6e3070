"""Fit the weights of evidence that catalogues without weights of their own are tagged with.

    python -m sft.default_evidence --data DIR DIR ... --out eval/results/evidence_default
    python -m sft.default_evidence --data DIR DIR ... --out DIR --write    and put them into the package

Three sets: of words (`lexical`), of words and meaning (`lexical_labels`), and of both with the nearest labelled
products (`lexical_labels_nearest`). Each is a logistic regression over all tags of up to 400 validation products a
catalogue, every catalogue counting the same; its labelled products are 100, and again 3,000, of training. How good
the weights are is measured on each catalogue with weights fitted on the others. The threshold is the one that
gives the best set-F1 there. Writes weights.json and evidence.md; the last line of stdout is the path of the
former. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag import program
from hangtag.baselines.facet_decoding import BoolArray, decode_scores, set_f1_of, sigmoid, tag_matrix
from hangtag.baselines.lexical import LexicalTagger
from hangtag.catalogue.labelled import load_dataset
from hangtag.errors import DataError
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.loading import LEARNING, SOURCES, WEIGHTS
from hangtag.manifest import provenance, write_json
from hangtag.metrics.text import markdown_table
from hangtag.vocabulary import TagVocabulary

SETS = {
    "lexical": ("lexical",),
    "lexical_labels": ("labels", "lexical"),
    "lexical_labels_nearest": ("labels", "lexical", "nearest"),
}
_NUM_PRODUCTS, _SEED = 400, 17
_NUM_EXAMPLES = (100, 3000)
# Of the L2 penalty, over columns of unit variance.
_STRENGTH = 0.01
# Of log-odds before a language model: see docs/evidence.md.
_SHARPNESS = 8.0
_NEVER_FOR = ("lexical.denied",)
_THRESHOLDS = [number / 100 for number in range(5, 55, 5)]


@dataclass(frozen=True)
class Catalogue:
    """One catalogue's scores by source, shape (products, tags, columns), and what is right."""

    name: str
    num_examples: int
    vocabulary: TagVocabulary
    scores: dict[str, npt.NDArray[np.float32]]
    gold: BoolArray
    lexical: BoolArray


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, measure, write, and return the exit code."""
    parser = program.parser("python -m sft.default_evidence", __doc__)
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="DIR", help="labelled datasets")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--write", action="store_true", help="also replace the package's weights")
    options = parser.parse_args(argv)
    return program.run("sft.default_evidence", lambda: fit_defaults(options.data, options.out, options.write))


def fit_defaults(folders: Sequence[Path], out: Path, write: bool) -> int:
    """Write the weights and what they are worth; see the module's docstring."""
    if len(folders) < 2:
        raise DataError(f"got {len(folders)} catalogue; expected two or more: weights are measured on others")
    catalogues = []
    with program.progress("reading", "catalogue", total=len(folders)) as bar:
        for folder in folders:
            catalogues += _read(folder)
            bar.update()
    document: dict[str, Any] = {"sets": {}, "left_out": {}, "provenance": provenance()}
    for name, sources in SETS.items():
        measured: dict[str, dict[float, float]] = {}
        for left in catalogues:
            weights = fit([other for other in catalogues if other.name != left.name], sources)
            odds = log_odds(left, weights)
            column = f"{left.name}, {left.num_examples}"
            measured[column] = {at: _set_f1(left, odds, at) for at in _THRESHOLDS}
        best = max(_THRESHOLDS, key=lambda at: sum(values[at] for values in measured.values()))
        fusion = fit(catalogues, sources).model_copy(update={"threshold": best, "sharpness": _SHARPNESS})
        document["sets"][name] = fusion.model_dump()
        document["left_out"][name] = {left: round(values[best], 4) for left, values in measured.items()}
        if write:
            write_json(WEIGHTS / f"{name}.json", fusion.model_dump())
    document["lexical"] = {
        f"{c.name}, {c.num_examples}": round(set_f1_of(c.lexical, c.gold), 4) for c in catalogues
    }
    write_json(out / "weights.json", document)
    (out / "evidence.md").write_text(_table(document), encoding="utf-8")
    print(out / "weights.json")
    return 0


def fit(catalogues: Sequence[Catalogue], sources: Sequence[str]) -> Fusion:
    """Return the weights that make the catalogues' labels likeliest, each catalogue counting the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    columns = _columns(sources)
    rows = [_rows(catalogue, sources).reshape(-1, len(columns)) for catalogue in catalogues]
    inputs, gold = np.concatenate(rows), np.concatenate([catalogue.gold.ravel() for catalogue in catalogues])
    weight = np.concatenate([np.full(len(part), 1e5 / len(part)) for part in rows])
    scaler = StandardScaler().fit(inputs)
    regression = LogisticRegression(C=_STRENGTH, max_iter=2000)
    regression.fit(scaler.transform(inputs), gold, sample_weight=weight)
    # Back from columns of unit variance to those of the sources.
    weights = regression.coef_[0] / scaler.scale_
    # Few products deny a tag, and labels that overlook it must not make a denial speak for one.
    weights[[name in _NEVER_FOR and weight > 0 for name, weight in zip(columns, weights, strict=True)]] = 0
    bias = float(regression.intercept_[0] - (weights * scaler.mean_).sum())
    return Fusion(
        weights={name: round(float(value), 4) for name, value in zip(columns, weights, strict=True)},
        bias=round(bias, 4),
        fitted_on={catalogue.name: len(catalogue.gold) for catalogue in catalogues},
    )


def log_odds(catalogue: Catalogue, fusion: Fusion) -> npt.NDArray[np.float64]:
    """Return each tag's log-odds under the weights, shape (products, tags)."""
    weights = np.array([fusion.weights[name] for name in _columns(fusion.sources)])
    odds: npt.NDArray[np.float64] = _rows(catalogue, fusion.sources) @ weights + fusion.bias
    return odds


def _read(folder: Path) -> list[Catalogue]:
    data = load_dataset(folder, splits=("train", "validation"))
    draw = random.Random(_SEED)
    products = draw.sample(data.validation, min(_NUM_PRODUCTS, len(data.validation)))
    shuffled = draw.sample(data.train, len(data.train))
    scores = {n: make(data.vocabulary, ()).scores(products) for n, make in SOURCES.items() if n not in LEARNING}
    lexical = tag_matrix(
        (tagging.names for tagging in LexicalTagger(data.vocabulary).tag(products)), data.vocabulary
    )
    gold = tag_matrix((product.tags or () for product in products), data.vocabulary)
    name = folder.resolve().name
    return [
        Catalogue(
            name,
            len(examples),
            data.vocabulary,
            scores | {n: SOURCES[n](data.vocabulary, examples).scores(products) for n in LEARNING},
            gold,
            lexical,
        )
        for examples in (shuffled[:number] for number in _NUM_EXAMPLES)
    ]


def _rows(catalogue: Catalogue, sources: Sequence[str]) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = np.concatenate([catalogue.scores[name] for name in sources], axis=2)
    return rows


def _columns(sources: Sequence[str]) -> list[str]:
    from hangtag.evidence.labels import LabelSource
    from hangtag.evidence.lexical import LexicalSource
    from hangtag.evidence.nearest import NearestSource

    kinds = {kind.name: kind.columns for kind in (LabelSource, LexicalSource, NearestSource)}
    return [f"{source}.{column}" for source in sources for column in kinds[source]]


def _set_f1(catalogue: Catalogue, odds: npt.NDArray[np.float64], threshold: float) -> float:
    at = dict.fromkeys(catalogue.vocabulary.facet_names, threshold)
    return set_f1_of(decode_scores(sigmoid(odds), catalogue.vocabulary, at), catalogue.gold)


def _table(document: dict[str, Any]) -> str:
    names = list(document["lexical"])
    rows = [["lexical tagger", *(f"{document['lexical'][name]:.3f}" for name in names)]]
    for kind, values in document["left_out"].items():
        rows.append([f"evidence {kind}", *(f"{values[name]:.3f}" for name in names)])
    return (
        "# Evidence with default weights\n\nset-F1 on validation products, without a language model, with weights "
        "fitted on the other catalogues; behind the "
        "comma, the number of labelled products.\n\n" + "\n".join(markdown_table(["", *names], rows)) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
