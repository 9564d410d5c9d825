"""Metrics, as a real StatsD client of Airflow's sends them over UDP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest
import statsd

from testkit.ledger import change_job, enlist, queued, running  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase
from airflow_remote_provider import compat, metrics
from airflow_remote_provider.api.duties.gauges import Gauges
from airflow_remote_provider.ledger import held_runtimes
from airflow_remote_provider.metrics import TABLE, MetricKind

from testkit.runtimes import LINUX, build, edition


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A StatsD server that receives the metrics."""
    from airflow._shared.observability.metrics import stats
    from airflow._shared.observability.metrics.statsd_logger import SafeStatsdLogger
    from airflow._shared.observability.metrics.validators import PatternAllowListValidator

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        client = statsd.StatsClient("127.0.0.1", server.getsockname()[1], prefix="airflow")
        logger = SafeStatsdLogger(client, PatternAllowListValidator(), False, None)
        monkeypatch.setattr(stats, "_backend", logger)
        yield server


def _receive(server: socket.socket, count: int) -> set[str]:
    return {server.recv(4096).decode() for _ in range(count)}


def test_each_kind_is_sent_with_its_tag_in_the_name_too(received: socket.socket) -> None:
    metrics.count("remote.gateway.calls")
    metrics.set_gauge("remote.queue.queued", 3, tag="plant 7.b")
    metrics.record_duration("remote.job.wait", timedelta(seconds=1.5), tag="q")
    assert _receive(received, 5) == {
        "airflow.remote.gateway.calls:1|c",
        "airflow.remote.queue.queued:3|g",
        "airflow.remote.queue.queued.plant_7_b:3|g",
        "airflow.remote.job.wait:1500.000000|ms",
        "airflow.remote.job.wait.q:1500.000000|ms",
    }


@pytest.mark.usefixtures("database")
def test_gauges_are_sent_for_the_fleet_and_for_each_queue(received: socket.socket) -> None:
    running(enlist(slots=5), slots=2)
    queued("z")
    with compat.transaction() as session:
        Gauges(silent_after=timedelta(seconds=90)).report(session)
    sent = {line.rpartition(":")[0]: line.rpartition(":")[2] for line in _receive(received, 30)}
    assert sent["airflow.remote.workers.online"] == "1|g" and sent["airflow.remote.workers.gone"] == "0|g"
    assert (sent["airflow.remote.slots"], sent["airflow.remote.slots_used"]) == ("5|g", "2|g")
    assert (sent["airflow.remote.queue.running.q"], sent["airflow.remote.queue.free_slots.q"]) == ("1|g", "3|g")
    assert sent["airflow.remote.queue.queued.z"] == "1|g" and "airflow.remote.queue.oldest_s.z" in sent


@pytest.mark.usefixtures("database")
def test_a_queue_that_no_longer_exists_is_reported_empty_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, float]] = []
    monkeypatch.setattr(compat, "emit", lambda kind, name, value, *, tags: sent.append((name, value)))
    job, gauges = queued("z"), Gauges(silent_after=timedelta(seconds=90))
    for state in ("queued", "succeeded", "succeeded"):
        change_job(job.job_id, state=state)
        with compat.transaction() as session:
            gauges.report(session)
    assert [value for name, value in sent if name == "remote.queue.queued.z"] == [1, 0]


@pytest.mark.usefixtures("database")
def test_workers_are_counted_by_runtime_serial_and_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, float]] = []
    monkeypatch.setattr(compat, "emit", lambda kind, name, value, *, tags: sent.append((name, value)))
    build()
    worker, gauges = enlist(capabilities=("task", "runtimes"), platform=LINUX), Gauges(silent_after=timedelta(seconds=90))
    for held in ([], [HeldRuntime(edition("default", 1), RuntimePhase.READY)], []):
        with compat.transaction() as session:
            held_runtimes.note(session, worker.id, held)
        with compat.transaction() as session:
            gauges.report(session)
    name = "remote.runtime.workers.default-1-"
    assert [value for one, value in sent if one == f"{name}waiting"] == [1, 0, 1]
    assert [value for one, value in sent if one == f"{name}ready"] == [1, 0]


def test_an_empty_tag_is_sent_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(compat, "emit", lambda kind, name, value, *, tags: sent.append((name, tags)))
    metrics.record_duration("remote.job.wait", timedelta(seconds=1))
    assert sent == [("remote.job.wait", {"queue": "none"}), ("remote.job.wait.none", None)]


def test_a_metric_that_cannot_be_sent_raises_nothing_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route")

    works = compat.emit
    for emit, logged in ((fail, 1), (fail, 1), (works, 1), (fail, 2)):
        monkeypatch.setattr(compat, "emit", emit)
        metrics.count("remote.gateway.calls")
        assert caplog.text.count("remote.gateway.calls could not be sent") == logged


def test_airflow_accepts_the_names() -> None:
    for name, metric in TABLE.items():
        assert name == name.lower() and name.startswith("remote.") and metric.text
        assert compat.metric_part(name).replace("_", ".").replace(".", "_") == name.replace(".", "_")
    assert {metric.kind for metric in TABLE.values()} == set(MetricKind)


def test_a_metric_that_is_not_in_the_table_raises() -> None:
    with pytest.raises(KeyError):
        metrics.count("remote.nothing")
    with pytest.raises(AssertionError):
        metrics.set_gauge("remote.gateway.calls", 1)
