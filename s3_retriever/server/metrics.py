"""What `/metrics` shows, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from s3_retriever.engine import S3Index
from s3_retriever.errors import S3Error

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts requests, and reads the sizes of indexes when asked.

    Args:
        indexes: The indexes by name.
    """

    def __init__(self, indexes: Mapping[str, S3Index]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "s3r_request_seconds",
            "Seconds from a request's header to the end of its response.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Sizes(indexes))
        ProcessCollector(registry=self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: Its method; only the usual ones are labels, which nobody can multiply.
            route: The pattern of its path, for the same reason.
            status: Status of the response.
            seconds: How long it took.
        """
        known = method if method in ("GET", "POST", "PUT", "DELETE") else "other"
        self._requests.labels(known, route, status).observe(seconds)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class _Sizes(Collector):
    def __init__(self, indexes: Mapping[str, S3Index]) -> None:
        self._indexes = indexes

    def describe(self) -> Iterable[Metric]:
        return ()  # read when asked for, not now

    def collect(self) -> Iterator[Metric]:
        stats = {}
        for name, index in self._indexes.items():
            with suppress(S3Error):  # which its next request reports
                stats[name] = index.stats()
        for size in ("documents", "tokens", "bytes", "segments", "generation"):
            family = GaugeMetricFamily(
                f"s3r_index_{size}", f"Of an index: {size}.", labels=["index"]
            )
            for name, values in stats.items():
                family.add_metric([name], values[size])
            yield family
