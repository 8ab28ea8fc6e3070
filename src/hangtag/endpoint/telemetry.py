"""What Prometheus sees of the endpoint, beside vLLM's own metrics in the same registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from hangtag.errors import MissingExtra
from hangtag.metrics.drift import TagDrift
from hangtag.tagging import ScoredTag
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_DRIFT_EVERY = 20
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_TAGS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32)
_CONFIDENCES = tuple(number / 10 for number in range(1, 11))


class Telemetry:
    """The endpoint's metrics; one object a process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register the metrics, in Prometheus's default registry where none is given.

        Raises:
            MissingExtra: prometheus_client is not installed.
        """
        try:
            from prometheus_client import REGISTRY, Counter, Gauge, Histogram
        except ImportError:
            raise MissingExtra("prometheus_client", "cpu") from None

        held = registry or REGISTRY
        self.taggings = Counter(
            "hangtag_taggings", "Taggings given, by status", ["vocabulary", "status"], registry=held
        )
        self.empty = Counter(
            "hangtag_empty_taggings", "Taggings of status ok without a tag", ["vocabulary"], registry=held
        )
        self.tags = Counter("hangtag_tags", "Tags given", ["vocabulary"], registry=held)
        self.below = Counter(
            "hangtag_tags_below_threshold", "Tags whose confidence is below the threshold", ["vocabulary"],
            registry=held,
        )  # fmt: skip
        self.tags_per_product = Histogram(
            "hangtag_tags_per_product", "Tags of a tagging", ["vocabulary"], buckets=_TAGS, registry=held
        )
        self.confidence = Histogram(
            "hangtag_confidence", "Confidences of tags", ["vocabulary"], buckets=_CONFIDENCES, registry=held
        )
        self.requests = Counter("hangtag_requests", "Requests answered", ["route", "status"], registry=held)
        self.rejected = Counter(
            "hangtag_rejected_requests", "Requests not served, by reason", ["reason"], registry=held
        )
        self.seconds = Histogram(
            "hangtag_request_seconds", "Time from a request to the end of its answer", ["route"],
            buckets=_SECONDS, registry=held,
        )  # fmt: skip
        self.in_flight = Gauge(
            "hangtag_products_in_flight", "Products that wait or are worked on", registry=held,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.drift = Gauge(
            "hangtag_tag_drift_psi", "Population-stability index of the tags against training", ["vocabulary"],
            registry=held, multiprocess_mode="livemax",
        )  # fmt: skip
        self._drifts: dict[str, TagDrift] = {}
        self._until_drift = _DRIFT_EVERY

    def watch(self, name: str, vocabulary: TagVocabulary) -> None:
        """Begin to compare tags with the vocabulary's training counts, if it has any."""
        counts: Mapping[str, int] = {tag.tag: tag.count for tag in vocabulary if tag.count is not None}
        if any(counts.values()):
            self._drifts[name] = TagDrift(counts)

    def tagging(self, vocabulary: str, status: str, tags: Iterable[ScoredTag], threshold: float) -> None:
        """Count one tagging."""
        self.taggings.labels(vocabulary, status).inc()
        if status != "ok":
            return
        given = list(tags)
        self.tags_per_product.labels(vocabulary).observe(len(given))
        self.tags.labels(vocabulary).inc(len(given))
        if not given:
            self.empty.labels(vocabulary).inc()
        for tag in given:
            if tag.confidence is not None:
                self.confidence.labels(vocabulary).observe(tag.confidence)
                if tag.confidence < threshold:
                    self.below.labels(vocabulary).inc()
        self._drift(vocabulary, given)

    def _drift(self, vocabulary: str, tags: list[ScoredTag]) -> None:
        drift = self._drifts.get(vocabulary)
        if drift is None:
            return
        drift.add(tag.tag for tag in tags)
        self._until_drift -= 1
        if self._until_drift <= 0:
            self._until_drift = _DRIFT_EVERY
            value = drift.value()
            if value is not None:
                self.drift.labels(vocabulary).set(value)


@lru_cache(1)
def process_telemetry() -> Telemetry:
    """Return the process's one set of metrics in Prometheus's default registry."""
    return Telemetry()
