"""Score taggings against gold: exact match and set-F1 of a tagger on the sample's test products, with intervals.

    .venv/bin/python examples/score_tagging.py

An unparsed answer counts as wrong, never as "no tags". The intervals are 95 % ones by bootstrap over the products.
It prints:

    86 products
    exact match 0.000 [0.000, 0.042]
    set-F1 0.695 [0.663, 0.726]
"""

from __future__ import annotations

from hangtag import load_dataset
from hangtag.loading import load_baseline
from hangtag.metrics import Outcomes, bind, exact_match, resample, set_f1
from hangtag.sample import sample_folder


def main() -> None:
    """Tag, score and print."""
    dataset = load_dataset(sample_folder())
    products = dataset.test
    tagger = load_baseline("lexical", (), (), dataset.vocabulary)
    taggings = tagger.tag(products)
    outcomes = Outcomes.from_sets(
        gold=[frozenset(product.tags or ()) for product in products],
        predicted=[frozenset(tagging.names) if tagging.status == "ok" else None for tagging in taggings],
        left_out=[sum(tagging.violations.values()) for tagging in taggings],
    )
    print(f"{len(outcomes)} products")
    scores = resample(bind(outcomes, exact_match, set_f1), len(outcomes))
    exact = scores.estimate("exact_match", share_of=len(outcomes))
    overlap = scores.estimate("set_f1")
    for name, score in (("exact match", exact), ("set-F1", overlap)):
        print(f"{name} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")


if __name__ == "__main__":
    main()
