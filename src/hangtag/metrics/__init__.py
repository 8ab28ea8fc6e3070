"""Metrics of taggings: pure functions over `Outcomes` and `Confidences`, with bootstrap intervals.

`sets` measures agreement of tag sets, `slices` parts of them, `calibration` what confidences are worth,
`rankings` ranked lists, `bootstrap` how sure a figure is, `proportion` a counted share, `agreement` how far people
agree, and `text` writes figures down. The same definitions in words are in docs/metrics.md.
"""

from hangtag.metrics.agreement import krippendorff_alpha
from hangtag.metrics.bootstrap import (
    NUM_RESAMPLES,
    Difference,
    Estimate,
    Figure,
    Resampled,
    bind,
    difference,
    estimate,
    resample,
    resample_weights,
)
from hangtag.metrics.calibration import (
    Confidences,
    ReliabilityBin,
    calibration_error,
    coverage_at,
    reliability,
    risk_coverage,
)
from hangtag.metrics.outcomes import Outcomes
from hangtag.metrics.proportion import wilson
from hangtag.metrics.rankings import coverage, hits_of, mean_over, novelty, ranking_metrics
from hangtag.metrics.sets import (
    cardinality_bias,
    cardinality_error,
    exact_match,
    is_exact,
    jaccard,
    macro_f1,
    macro_precision,
    macro_recall,
    micro_f1,
    micro_precision,
    micro_recall,
    product_f1,
    set_f1,
    validity,
)
from hangtag.metrics.slices import facet_accuracy, frequency_groups, hierarchical_f1, is_chinese, tags_f1

__all__ = [
    "NUM_RESAMPLES",
    "Confidences",
    "Difference",
    "Estimate",
    "Figure",
    "Outcomes",
    "ReliabilityBin",
    "Resampled",
    "bind",
    "calibration_error",
    "cardinality_bias",
    "cardinality_error",
    "coverage",
    "coverage_at",
    "difference",
    "estimate",
    "exact_match",
    "facet_accuracy",
    "frequency_groups",
    "hierarchical_f1",
    "hits_of",
    "is_chinese",
    "is_exact",
    "jaccard",
    "krippendorff_alpha",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "mean_over",
    "micro_f1",
    "micro_precision",
    "micro_recall",
    "novelty",
    "product_f1",
    "ranking_metrics",
    "reliability",
    "resample",
    "resample_weights",
    "risk_coverage",
    "set_f1",
    "tags_f1",
    "validity",
    "wilson",
]
