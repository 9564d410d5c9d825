"""What needs an operator now, read from the database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testkit.ledger import ago, change_job, change_worker, enlist, queued, set_last_seen  # isort: skip

from airflow_remote_protocol.messages import MachineUsage
from airflow_remote_protocol.messages import Usage as ReportedUsage
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import conditions, releases, rollouts, runtimes, usage
from airflow_remote_provider.ledger.conditions import Limits
from airflow_remote_provider.ledger.incident_rules import IncidentKind
from airflow_remote_provider.ledger.runtimes import Built, Recipe

from testkit.runtimes import LINUX, stored_tree  # isort: skip

pytestmark = pytest.mark.usefixtures("database")

LIMITS = Limits(
    silent=timedelta(seconds=100),
    waiting=timedelta(minutes=15),
    disk_bytes=200e6,
    credential_life=timedelta(days=30),
    presence=timedelta(seconds=90),
)


def _of_workers() -> list[tuple[str, str]]:
    with compat.transaction() as session:
        found = conditions.find_of_workers(session, LIMITS)
    return sorted((one.kind.value, one.subject) for one in found)


def _the_rest() -> list[tuple[str, str]]:
    with compat.transaction() as session:
        return sorted((one.kind.value, one.subject) for one in conditions.find_the_rest(session, LIMITS))


def test_a_healthy_fleet_has_no_conditions() -> None:
    enlist()
    assert (_of_workers(), _the_rest()) == ([], [])


def test_a_silent_worker_is_found_unless_it_is_drained_or_ephemeral() -> None:
    silent, drained, ephemeral = enlist("silent"), enlist("drained"), enlist("ephemeral", ephemeral=True)
    for worker in (silent, drained, ephemeral):
        set_last_seen(worker.id, ago(seconds=130))
    change_worker(drained.id, intent="drain")
    assert _of_workers() == [("worker-silent", "silent")]


def test_a_worker_that_was_shut_down_cleanly_is_not_silent() -> None:
    worker = enlist()
    set_last_seen(worker.id, ago(days=1))
    change_worker(worker.id, boot_id=None)
    assert _of_workers() == []


def test_a_flagged_worker_is_found_with_its_alarm() -> None:
    change_worker(enlist("edge").id, alarm="12:00 UTC: a copy of the machine used this worker's credential")
    with compat.transaction() as session:
        (found,) = conditions.find_of_workers(session, LIMITS)
    assert (found.kind, found.subject) == (IncidentKind.WORKER_FLAGGED, "edge")
    assert "a copy of the machine" in found.text


def test_a_credential_that_was_not_replaced_in_time_is_found() -> None:
    change_worker(enlist("soon").id, credential_expires_at=ago(days=-1))
    change_worker(enlist("later").id, credential_expires_at=ago(days=-3))
    assert _of_workers() == [("credential-ending", "soon")]


def test_a_queue_whose_jobs_wait_for_a_worker_is_found_after_a_minute() -> None:
    for queue, waits_s in (("new", 5), ("old", 70)):
        change_job(queued(queue).job_id, queued_at=ago(seconds=waits_s))
    assert _the_rest() == [("queue-unserved", "old")]
    enlist(queues=["old"])
    assert _the_rest() == []


def test_a_job_that_waits_too_long_is_found_although_workers_serve_its_queue() -> None:
    enlist()
    change_job(queued().job_id, queued_at=ago(minutes=20))
    assert _the_rest() == [("job-waiting", "q")]


def test_a_full_disk_is_found_in_the_last_report() -> None:
    for name, free in (("full", 150_000_000), ("roomy", 250_000_000)):
        machine = MachineUsage(cpus=1, cpu_count=2, memory=1, memory_total=2, disk_free=free)
        with compat.transaction() as session:
            usage.note(session, enlist(name).id, ReportedUsage(machine=machine))
    assert _the_rest() == [("disk-full", "full")]


def test_halted_rollouts_are_found() -> None:
    built = [Built(LINUX, stored_tree("one"))]
    with compat.transaction() as session:
        for _ in range(2):
            runtimes.add(session, "gpu", Recipe(), built, built_with={}, by="ann")
        rollouts.roll(session, rollouts.of_runtime("gpu"), by="ann")
        for _ in range(2):
            releases.add(session, "0.2.0", built, by="ann")
        rollouts.roll(session, rollouts.RELEASES, by="ann")
    assert _the_rest() == []
    with compat.transaction() as session:
        rollouts.halt(session, rollouts.of_runtime("gpu"), by="ann", reason="it fails")
        rollouts.halt(session, rollouts.RELEASES, by="ann", reason="it fails")
    assert _the_rest() == [("rollout-halted", "release worker"), ("rollout-halted", "runtime gpu")]
