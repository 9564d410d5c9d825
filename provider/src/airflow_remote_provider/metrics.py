"""Central's metrics, sent through Airflow's own metrics (StatsD, OpenTelemetry): one table of names, and functions to send them.

Costs almost nothing where metrics are off, and a failure never affects the measured code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

log = logging.getLogger(__name__)

UNNAMED = "none"
"""The value of a tag that is empty."""
_failing: set[str] = set()
"""Metrics that could not be sent the last time. Each is logged once, because some are sent many times a second."""
GAUGES_EVERY_S = 30.0
"""How often the API process that is on duty sends the gauges."""


class MetricKind(str, Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    TIMER = "timer"


class Metric(NamedTuple):
    kind: MetricKind
    tag: str
    """Its only tag; empty: no tag. The value is also sent as the last part of the name, because StatsD has no tags."""
    text: str


TABLE: Mapping[str, Metric] = {
    "remote.workers": Metric(
        MetricKind.GAUGE, "presence", "workers, by presence: `online`, `silent`, `offline`, `never_connected`, `gone`"
    ),
    "remote.workers_flagged": Metric(MetricKind.GAUGE, "", "workers with an alarm, suspended, or unfit"),
    "remote.workers_unfit": Metric(MetricKind.GAUGE, "", "workers whose runtime can't host tasks; they get no jobs"),
    "remote.runtime.workers": Metric(
        MetricKind.GAUGE,
        "runtime",
        "workers that are to have a runtime from central, by its name, serial and phase, such as `default-3-ready`; phases: "
        "`ready`, `preparing`, `failed`, `waiting` (not begun), `missing` (none for their platform, serial 0)",
    ),
    "remote.release.workers": Metric(
        MetricKind.GAUGE,
        "release",
        "workers that take releases of their software from central, by the serial that they are to run (0: what they run) and "
        "phase, such as `3-running`; phases: `running`, `trying`, `preparing`, `failed`, `refused`, `waiting` (not begun)",
    ),
    "remote.slots": Metric(MetricKind.GAUGE, "", "slots that the online workers may fill"),
    "remote.slots_used": Metric(MetricKind.GAUGE, "", "slots that jobs fill, on all workers"),
    "remote.queue.queued": Metric(MetricKind.GAUGE, "queue", "jobs that wait"),
    "remote.queue.running": Metric(MetricKind.GAUGE, "queue", "jobs that run"),
    "remote.queue.oldest_s": Metric(MetricKind.GAUGE, "queue", "age of the oldest job that waits, in seconds; 0: no job waits"),
    "remote.queue.free_slots": Metric(MetricKind.GAUGE, "queue", "free slots of the workers that take its jobs now"),
    "remote.job.ended": Metric(
        MetricKind.COUNTER, "state", "jobs whose end was reported to the scheduler: `succeeded`, `failed`, `lost`, `revoked`"
    ),
    "remote.job.wait": Metric(MetricKind.TIMER, "queue", "from queued to started; sent when the job has ended"),
    "remote.job.duration": Metric(MetricKind.TIMER, "queue", "from started to ended"),
    "remote.log.bytes": Metric(MetricKind.COUNTER, "", "bytes of task logs that workers sent, unpacked"),
    "remote.code.bytes": Metric(MetricKind.COUNTER, "", "bytes of code that were sent to workers"),
    "remote.gateway.calls": Metric(MetricKind.COUNTER, "", "calls of tasks that were passed on to the Execution API"),
    "remote.gateway.denied": Metric(MetricKind.COUNTER, "", "calls of tasks that were not granted"),
}
"""Every metric. The documentation is generated from this table."""


def count(name: str, by: int = 1, *, tag: str = "") -> None:
    """Add to a counter."""
    _emit(MetricKind.COUNTER, name, by, tag=tag)


def set_gauge(name: str, value: float, *, tag: str = "") -> None:
    """Send the current value of a gauge."""
    _emit(MetricKind.GAUGE, name, value, tag=tag)


def record_duration(name: str, took: timedelta, *, tag: str = "") -> None:
    """Send how long something took."""
    _emit(MetricKind.TIMER, name, took, tag=tag)


def _emit(kind: MetricKind, name: str, value: float | timedelta, *, tag: str) -> None:
    metric = TABLE[name]
    assert metric.kind is kind and (metric.tag or not tag), f"{name} is a {metric.kind.value} with the tag {metric.tag!r}"
    from airflow_remote_provider import compat

    try:
        compat.emit(kind.value, name, value, tags={metric.tag: tag or UNNAMED} if metric.tag else None)
        if metric.tag:
            compat.emit(kind.value, f"{name}.{compat.metric_part(tag or UNNAMED)}", value, tags=None)
    except Exception:  # Airflow's client, or the site's own: no failure of either may end what is measured
        if name not in _failing:
            _failing.add(name)
            log.warning("The metric %s could not be sent; this is logged again once it has worked", name, exc_info=True)
    else:
        _failing.discard(name)
