"""Numbers as the families of samples that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from kalam.latency import BOUNDS_S, Latency

Plain = Iterable[tuple[str, str, float]]
"""Name, what it means, value."""
ENDS = (*map(str, BOUNDS_S), "+Inf")


def counters(rows: Plain) -> Iterator[Metric]:
    """Numbers without labels that only grow; the names get ``_total``."""
    for name, text, value in rows:
        yield CounterMetricFamily(name, text, value=value)


def gauges(rows: Plain) -> Iterator[Metric]:
    """Numbers without labels."""
    for name, text, value in rows:
        yield GaugeMetricFamily(name, text, value=value)


def counter(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    """A counter with labels, and the value for each of their values."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def gauge(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    """A gauge with labels, and the value for each of their values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def histogram(name: str, text: str, latency: Latency) -> Metric:
    """The durations of one kind of work."""
    return HistogramMetricFamily(name, text, buckets=_buckets(latency), sum_value=latency.total_s)


def histograms(name: str, text: str, label: str, latencies: Iterable[tuple[str, Latency]]) -> Metric:
    """The durations of several kinds of work, by a label."""
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, latency in latencies:
        family.add_metric([value], _buckets(latency), latency.total_s)
    return family


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    return list(zip(ENDS, accumulate(latency.counts), strict=True))
