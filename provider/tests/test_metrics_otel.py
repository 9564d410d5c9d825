"""Metrics, as Airflow's own OpenTelemetry back-end sends them, from a process that is set up like an API server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from airflow_remote_provider.metrics import TABLE, MetricKind

from testkit.processes import clean_environment
from testkit.servers.collector import Collector, Series

QUEUE = "plant 7.b"
LONG = "q" * 256

SEND = f"""
from datetime import timedelta
from airflow.api_fastapi.app import _initialize_api_server_stats
from airflow._shared.observability.metrics.otel_logger import flush_otel_metrics
from airflow_remote_provider import metrics
from airflow_remote_provider.metrics import TABLE, MetricKind
_initialize_api_server_stats()
send = {{
    MetricKind.COUNTER: lambda name, tag: metrics.count(name, 2, tag=tag),
    MetricKind.GAUGE: lambda name, tag: metrics.set_gauge(name, 3, tag=tag),
    MetricKind.TIMER: lambda name, tag: metrics.record_duration(name, timedelta(seconds=1.5), tag=tag),
}}
for name, metric in TABLE.items():
    send[metric.kind](name, {QUEUE!r} if metric.tag else "")
metrics.set_gauge("remote.queue.queued", 4, tag={QUEUE!r})
metrics.set_gauge("remote.queue.queued", 5, tag={LONG!r})
flush_otel_metrics()
"""
KINDS = {MetricKind.COUNTER: ("sum", 2.0), MetricKind.GAUGE: ("gauge", 3.0), MetricKind.TIMER: ("exponential_histogram", 1500.0)}


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    home: Path = tmp_path_factory.mktemp("airflow")
    with Collector() as collector:
        environment = clean_environment({"AIRFLOW_HOME": str(home), **collector.environment()})
        done = subprocess.run([sys.executable, "-P", "-c", SEND], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Invalid stat" not in done.stderr and "could not be sent" not in done.stderr, done.stderr
        return collector.series


@pytest.mark.parametrize("name", [name for name in TABLE if name != "remote.queue.queued"])
def test_every_metric_arrives_with_its_kind_its_value_and_its_tag(received: dict[str, Series], name: str) -> None:
    metric = TABLE[name]
    kind, value = KINDS[metric.kind]
    series = received[f"airflow.{name}"]
    tags = frozenset([(metric.tag, QUEUE)] if metric.tag else [])
    assert (series.kind, series.values) == (kind, {tags: value})


def test_the_tag_in_the_name_arrives_too(received: dict[str, Series]) -> None:
    assert received["airflow.remote.job.ended.plant_7_b"].values == {frozenset(): 2.0}


def test_a_gauge_has_its_last_value_and_a_long_name_affects_no_other(received: dict[str, Series]) -> None:
    values = received["airflow.remote.queue.queued"].values
    assert values == {frozenset([("queue", QUEUE)]): 4.0, frozenset([("queue", LONG)]): 5.0}


def test_no_other_metric_is_sent(received: dict[str, Series]) -> None:
    ours = {name.removeprefix("airflow.") for name in received if name.startswith("airflow.remote.")}
    plain = {name for name in ours if name in TABLE}
    with_tag = {name for name in ours - plain if any(name.startswith(f"{known}.") and TABLE[known].tag for known in TABLE)}
    assert plain == set(TABLE) and with_tag == ours - plain
