"""Sessions of workers, takeovers, and copies of a worker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import ago, audit_entries, enlist, job_row, set_last_seen, offered, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import HeldJob, JobPhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import sessions, workers
from airflow_remote_provider.ledger.errors import Cloned, Revoked
from airflow_remote_provider.ledger.views.audit import AuditRow
from airflow_remote_provider.ledger.views.serving import capacities
from airflow_remote_provider.ledger.views.workers import WorkerRow, list_workers
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.models import Worker

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _list() -> list[WorkerRow]:
    with compat.transaction() as session:
        return list_workers(session, silent_after=SILENT).rows


def _audit() -> list[AuditRow]:
    """Return the audit entries since the workers have joined."""
    return [entry for entry in audit_entries() if entry.kind not in ("action", "enrolled")]


def test_the_same_instance_takes_over_at_once() -> None:
    worker = enlist()
    record = _do(sessions.open_session, worker.id, session_request(slots=9))
    assert isinstance(record, WorkerRecord)
    assert record.session_id not in (None, worker.session_id)
    assert record.slots == 9


def test_another_installation_is_refused_and_changes_nothing() -> None:
    worker = enlist()
    with pytest.raises(Cloned, match="enrol create --replaces worker"):
        _do(sessions.open_session, worker.id, session_request(instance_id="copy", slots=99))
    row = worker_row(worker.id)
    assert (row.session_id, row.instance_id, row.slots, row.alarm) == (worker.session_id, "instance", 4, "")


def test_a_clone_is_flagged() -> None:
    worker = enlist()
    _do(sessions.flag_clone, worker.id)
    assert "another installation" in _list()[0].alarm


def test_a_restart_of_a_live_worker_is_audited_as_takeover() -> None:
    worker = enlist("edge-1")
    for _ in range(2):
        _do(sessions.open_session, worker.id, session_request())
    (entry,) = _audit()
    assert (entry.kind, entry.worker, entry.times) == ("takeover", "edge-1", 2)


def test_a_start_after_a_silence_is_no_takeover() -> None:
    worker = enlist()
    set_last_seen(worker.id, ago(minutes=5))
    _do(sessions.open_session, worker.id, session_request())
    assert _audit() == []


def test_a_start_that_calls_again_after_a_takeover_is_the_original() -> None:
    worker = enlist("edge-1")
    lease = running(worker)
    first = worker_row(worker.id).boot_id
    _do(sessions.open_session, worker.id, session_request(boot_id="later"))
    record = _do(
        sessions.open_session,
        worker.id,
        session_request(boot_id=first or "", jobs=[HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING)]),
    )
    row = worker_row(worker.id)
    assert (row.boot_id, row.session_id) == (first, record.session_id)  # type: ignore[attr-defined]
    assert "copy" in row.alarm
    assert [entry.kind for entry in _audit()] == ["clone", "takeover"]
    for _ in range(2):
        with pytest.raises(Cloned, match="another name"):
            _do(sessions.open_session, worker.id, session_request(boot_id="later"))
    assert worker_row(worker.id).session_id == row.session_id, "the first one keeps its session"
    job = job_row(lease.job_id)
    assert (job.state, job.missing_since) == ("running", None)


def test_a_start_that_was_taken_over_long_ago_is_refused() -> None:
    worker = enlist()
    first = worker_row(worker.id).boot_id
    _do(sessions.open_session, worker.id, session_request(boot_id="later"))
    with compat.transaction() as session:
        session.execute(update(Worker).values(session_at=ago(minutes=11)))
    with pytest.raises(Cloned):
        _do(sessions.open_session, worker.id, session_request(boot_id=first or ""))
    assert worker_row(worker.id).boot_id == "later"


def test_the_same_start_can_open_another_session() -> None:
    worker = enlist()
    boot = worker_row(worker.id).boot_id or ""
    _do(sessions.open_session, worker.id, session_request(boot_id=boot))
    row = worker_row(worker.id)
    assert (row.boot_id, row.previous_boot_id, row.alarm) == (boot, None, "")
    assert _audit() == []


def test_a_database_restored_from_a_backup_loses_nothing() -> None:
    """The restored rows have an older start and session of the worker."""
    worker = enlist()
    kept, ended_since = running(worker), running(worker)
    with compat.transaction() as session:
        session.execute(update(Worker).values(boot_id="of the backup", session_id="of the backup", changed_at=ago(days=3)))
    set_last_seen(worker.id, ago(days=3))
    _do(sessions.open_session, worker.id, session_request(jobs=[HeldJob(kept.job_id, kept.epoch, JobPhase.RUNNING)]))
    assert (worker_row(worker.id).alarm, job_row(kept.job_id).state) == ("", "running")
    assert job_row(ended_since.job_id).missing_since is not None, "it ended after the backup; Airflow retries it"


@pytest.mark.parametrize(
    ("off_s", "listed"), [(0, None), (-30, None), (600, 600), (-86_400, -86_400), (1e300, sessions.WIDEST_OFFSET_S)]
)
def test_the_list_shows_a_clock_offset_above_the_threshold(off_s: float, listed: float | None) -> None:
    worker = enlist()
    _do(sessions.open_session, worker.id, session_request(time=ago().timestamp() + off_s))
    shown = _list()[0].clock_off_s
    assert shown == listed if listed is None else shown == pytest.approx(listed, abs=5)


def test_a_worker_that_reports_no_time_has_no_clock_offset() -> None:
    worker = enlist()
    _do(sessions.open_session, worker.id, session_request())
    assert worker_row(worker.id).clock_offset_s is None


def test_a_revoked_worker_opens_no_session() -> None:
    worker = enlist()
    _do(workers.revoke_worker, worker.name)
    for worker_id in (worker.id, "unknown"):
        with pytest.raises(Revoked):
            _do(sessions.open_session, worker_id, session_request())


def test_a_session_reconciles_the_jobs_of_the_worker() -> None:
    worker = enlist()
    kept, forgotten = running(worker), offered(worker)
    _do(sessions.open_session, worker.id, session_request(jobs=[HeldJob(kept.job_id, kept.epoch, JobPhase.RUNNING)]))
    assert (job_row(kept.job_id).state, job_row(forgotten.job_id).state) == ("running", "queued")


def test_a_refused_session_changes_no_job() -> None:
    worker = enlist()
    lease = running(worker)
    with pytest.raises(Cloned):
        _do(sessions.open_session, worker.id, session_request(instance_id="copy"))
    assert job_row(lease.job_id).state == "running"


def test_a_session_is_a_contact() -> None:
    worker = enlist()
    set_last_seen(worker.id, None)
    _do(sessions.open_session, worker.id, session_request())
    assert _list()[0].presence == "online"


def test_a_worker_whose_daemon_ended_is_online_again_without_a_takeover() -> None:
    worker = enlist()
    assert _do(sessions.end_session, worker.id, "another session") is None
    assert _list()[0].presence == "online"
    lease = running(worker)
    _do(sessions.end_session, worker.id, worker.session_id)
    assert (_list()[0].presence, job_row(lease.job_id).state) == ("offline", "running")
    assert _free_slots() == 0
    _do(sessions.open_session, worker.id, session_request(boot_id="next"))
    assert _list()[0].presence == "online"
    assert _audit() == []


def _free_slots() -> int:
    found = _do(capacities, silent_after=SILENT)
    assert isinstance(found, dict)
    return sum(capacity.free_slots for capacity in found.values())
