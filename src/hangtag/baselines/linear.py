"""The linear baseline: TF-IDF of words and characters, one logistic regression a tag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hangtag.baselines.facet_decoding import (
    BoolArray,
    decode_scores,
    set_f1_of,
    sigmoid,
    tag_matrix,
    to_taggings,
    tune_thresholds,
)
from hangtag.baselines.linear_attribution import attribute
from hangtag.errors import DataError, MissingExtra
from hangtag.product import Product
from hangtag.tagging import Tagging
from hangtag.vocabulary import TagVocabulary

# Inverse strengths of the L2 penalty that are tried (`C` of scikit-learn).
_STRENGTHS = (5.0, 10.0, 20.0)
_TUNED_ON = 6000
_SEED = 17
# Non-zero features times tags from which a pool of processes, a second to start, is worth it.
_WORTH_PROCESSES = 20_000_000


class LinearTagger:
    """Tags by one-vs-rest logistic regression on TF-IDF of words, word pairs and characters.

    Each facet is decoded by `decode_scores`, under thresholds tuned on validation. Confidence is the
    regression's probability.
    """

    name = "linear"

    def __init__(
        self,
        features: Any,
        weights: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        vocabulary: TagVocabulary,
        *,
        strength: float,
        thresholds: Mapping[str, float],
    ) -> None:
        """Keep fitted features, weights of shape (features, tags) and a bias a tag."""
        self.vocabulary = vocabulary
        self.strength, self.thresholds = strength, dict(thresholds)
        self._features, self._weights, self._bias = features, weights, bias

    @classmethod
    def fit(
        cls, train: Sequence[Product], validation: Sequence[Product], vocabulary: TagVocabulary
    ) -> LinearTagger:
        """Return the tagger with the penalty and the thresholds that give the best set-F1 on `validation`.

        The strength of the penalty is chosen with the first 6,000 training products, then all are fitted.
        Deterministic. Cost: some minutes for 30,000 products and 200 tags.

        Raises:
            MissingExtra: scikit-learn is not installed.
        """
        features = _features(min_count=2 if len(train) > 500 else 1)
        inputs = features.fit_transform([product.text for product in train]).tocsr()
        gold = tag_matrix((product.tags or () for product in train), vocabulary)
        wanted_inputs = features.transform([product.text for product in validation]).tocsr()
        wanted = tag_matrix((product.tags or () for product in validation), vocabulary)
        few = min(_TUNED_ON, len(train))
        best: tuple[float, float] | None = None
        for strength in _STRENGTHS:
            weights, bias = _fit(inputs[:few], gold[:few], strength)
            scores = sigmoid(wanted_inputs @ weights + bias)
            thresholds = tune_thresholds(scores, wanted, vocabulary)
            value = set_f1_of(decode_scores(scores, vocabulary, thresholds), wanted)
            if best is None or value > best[0]:
                best = value, strength
        assert best is not None
        weights, bias = _fit(inputs, gold, best[1])
        thresholds = tune_thresholds(sigmoid(wanted_inputs @ weights + bias), wanted, vocabulary)
        return cls(features, weights, bias, vocabulary, strength=best[1], thresholds=thresholds)

    def save(self, path: Path) -> None:
        """Write `path`.skops (the features) and `path`.npz. Raises MissingExtra: skops is not installed."""
        _skops().dump(self._features, path.with_suffix(".skops"))
        np.savez_compressed(
            path.with_suffix(".npz"),
            # Half precision moves log-odds by less than a thousandth.
            weights=self._weights.astype(np.float16),
            bias=self._bias,
            strength=self.strength,
            thresholds=json.dumps(self.thresholds),
        )

    @classmethod
    def load(cls, path: Path, vocabulary: TagVocabulary) -> LinearTagger:
        """Return what `save` wrote.

        Raises:
            DataError: it is damaged, or of another vocabulary.
            MissingExtra: skops or scikit-learn is not installed.
        """
        skops = _skops()
        try:
            features = skops.load(path.with_suffix(".skops"), trusted=[])
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as kept:
                weights, bias = kept["weights"].astype(np.float32), kept["bias"]
                strength, thresholds = float(kept["strength"]), json.loads(str(kept["thresholds"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}.skops, .npz: damaged ({error!s:.200}); fit it again") from None
        if len(bias) != len(vocabulary):
            raise DataError(f"{path}.npz: for {len(bias)} tags, expected {len(vocabulary)}; fit it again")
        return cls(features, weights, bias, vocabulary, strength=strength, thresholds=thresholds)

    def tag(self, products: Sequence[Product]) -> list[Tagging]:
        """Return one tagging a product."""
        if not products:
            return []
        scores = sigmoid(self.log_odds(products))
        return to_taggings(products, scores, self.vocabulary, self.thresholds, model=self.name)

    def log_odds(self, products: Sequence[Product]) -> npt.NDArray[np.float32]:
        """Return what the regressions say of each tag, shape (products, tags); of no product none."""
        if not products:
            return np.zeros((0, len(self.vocabulary)), np.float32)
        inputs = self._features.transform([product.text for product in products])
        odds: npt.NDArray[np.float32] = inputs @ self._weights + self._bias
        return odds

    def attributions(self, text: str, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return what each character of a text adds to the log-odds of some tags, shape (characters, tags).

        A word, a pair of words or a sequence of characters has the exact share `TF-IDF x weight`; it is spread
        evenly over the characters that it covers in the text. So a column sums up to log-odds without the bias.
        """
        columns = [self.vocabulary.position(name) for name in names]
        return attribute(self._features, self._weights[:, columns], text)

    def bias_of(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the log-odds of some tags for a text without a known word."""
        bias: npt.NDArray[np.float32] = self._bias[[self.vocabulary.position(name) for name in names]]
        return bias


def _skops() -> Any:
    try:
        import sklearn  # noqa: F401
        import skops.io
    except ImportError as error:
        raise MissingExtra(error.name or "skops", "eval") from None
    return skops.io


def _features(*, min_count: int) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import FeatureUnion
    except ImportError:
        raise MissingExtra("scikit-learn", "eval") from None
    common = {"min_df": min_count, "sublinear_tf": True, "dtype": np.float32}
    # Words of one character count too: sizes, and Chinese.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **common)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
    return FeatureUnion([("words", words), ("characters", characters)])


def _fit(inputs: Any, gold: BoolArray, strength: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return weights of shape (features, tags) and a bias a tag."""
    from joblib import Parallel, delayed
    from sklearn.linear_model import LogisticRegression

    weights = np.zeros((inputs.shape[1], gold.shape[1]), dtype=np.float32)
    # A tag that all or none hold has nothing to be regressed on.
    bias = np.where(gold.all(axis=0), 10.0, -10.0).astype(np.float32)

    def fit_tag(column: int) -> tuple[Any, Any]:
        # Coordinate descent in the dual, made for more features than rows.
        regression = LogisticRegression(
            solver="liblinear", dual=True, C=strength, tol=0.01, max_iter=1000, random_state=_SEED
        ).fit(inputs, gold[:, column])
        return regression.coef_[0], regression.intercept_[0]

    varied = np.flatnonzero(gold.any(axis=0) & ~gold.all(axis=0))
    # Processes, not threads: liblinear has one random generator a process, which threads would share by chance.
    num_jobs = -1 if inputs.nnz * len(varied) > _WORTH_PROCESSES else 1
    # By value: what joblib maps into memory instead is read-only, and liblinear wants to write.
    fitted = Parallel(n_jobs=num_jobs, max_nbytes=None)(delayed(fit_tag)(column) for column in varied)
    for column, (weight, intercept) in zip(varied, fitted, strict=True):
        weights[:, column], bias[column] = weight, intercept
    return weights, bias
