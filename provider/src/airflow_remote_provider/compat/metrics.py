"""Airflow's own metrics."""

from __future__ import annotations

from typing import Any


def emit(kind: str, name: str, value: Any, *, tags: dict[str, str] | None) -> None:
    """Send a `counter`, `gauge` or `timer` to Airflow's metrics."""
    from airflow._shared.observability.metrics import stats

    if kind == "counter":
        stats.incr(name, value, tags=tags)
    elif kind == "gauge":
        stats.gauge(name, value, tags=tags)
    else:
        stats.timing(name, value, tags=tags)


def metric_part(text: str) -> str:
    """Return *text* as one part of a metric's name."""
    from airflow._shared.observability.metrics.stats import normalize_name_for_stats

    return str(normalize_name_for_stats(text, log_warning=False)).replace(".", "_")


def metrics_are_on() -> bool:
    from airflow.configuration import conf

    return any(conf.getboolean("metrics", name) for name in ("statsd_on", "statsd_datadog_enabled", "otel_on"))
