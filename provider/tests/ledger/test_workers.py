"""Sessions, wishes, and what people and API processes read of workers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from testkit.ledger import ago, enlist, job_row, last_seen, offered, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import HeldJob, IntentMode, JobPhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.ledger.errors import Cloned, LedgerError, Revoked, Unknown
from airflow_remote_provider.ledger.workers import WorkerRecord, WorkerRow
from airflow_remote_provider.models import Presence

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _list(name: str | None = None) -> list[WorkerRow]:
    with compat.transaction() as session:
        return workers.list_workers(session, silent_after=SILENT, name=name)


def _changed(since: object) -> list[WorkerRecord]:
    with compat.transaction() as session:
        return workers.changed_since(session, since)  # type: ignore[arg-type]


# Sessions


def test_the_same_instance_takes_over_at_once() -> None:
    worker = enlist()
    record = _do(workers.open_session, worker.id, session_request(slots=9))
    assert isinstance(record, WorkerRecord)
    assert record.session_id not in (None, worker.session_id)
    assert record.slots == 9


def test_another_instance_is_refused_and_changes_nothing() -> None:
    worker = enlist()
    with pytest.raises(Cloned, match="workers remove worker"):
        _do(workers.open_session, worker.id, session_request(instance_id="copy", slots=99))
    row = worker_row(worker.id)
    assert (row.session_id, row.instance_id, row.slots, row.alarm) == (worker.session_id, "instance", 4, "")


def test_a_clone_is_flagged() -> None:
    worker = enlist()
    _do(workers.flag_clone, worker.id)
    assert "another installation" in _list()[0].alarm


def test_a_revoked_worker_opens_no_session() -> None:
    worker = enlist()
    _do(workers.revoke_worker, worker.name)
    for worker_id in (worker.id, "never heard of"):
        with pytest.raises(Revoked):
            _do(workers.open_session, worker_id, session_request())


def test_a_session_reconciles_what_the_worker_holds() -> None:
    worker = enlist()
    kept, forgotten = running(worker), offered(worker)
    _do(workers.open_session, worker.id, session_request(jobs=[HeldJob(kept.job_id, kept.epoch, JobPhase.RUNNING)]))
    assert (job_row(kept.job_id).state, job_row(forgotten.job_id).state) == ("running", "queued")


def test_a_refused_session_touches_no_job() -> None:
    worker = enlist()
    lease = running(worker)
    with pytest.raises(Cloned):
        _do(workers.open_session, worker.id, session_request(instance_id="copy"))
    assert job_row(lease.job_id).state == "running"


def test_a_session_is_a_contact() -> None:
    worker = enlist()
    last_seen(worker.id, None)
    _do(workers.open_session, worker.id, session_request())
    assert _list()[0].presence == "online"


# Wishes


def test_every_wish_raises_the_revision() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", reason="maintenance")
    _do(workers.limit_slots, worker.name, 2, by="bob")
    record = _do(workers.by_credential, worker_row(worker.id).credential_hash)
    assert isinstance(record, WorkerRecord)
    intent = record.intent
    assert (intent.mode, intent.revision, intent.slots, intent.reason) == (IntentMode.PAUSE, 3, 2, "maintenance")
    row = worker_row(worker.id)
    assert row.intent_by == "bob" and row.intent_at is not None


def test_a_limit_may_be_lifted() -> None:
    worker = enlist()
    _do(workers.limit_slots, worker.name, 2, by="me")
    _do(workers.limit_slots, worker.name, None, by="me")
    assert worker_row(worker.id).slots_limit is None


@pytest.mark.parametrize(
    "verb",
    [
        lambda session: workers.set_intent(session, "nobody", IntentMode.PAUSE, by="me"),
        lambda session: workers.limit_slots(session, "nobody", 1, by="me"),
        lambda session: workers.revoke_worker(session, "nobody"),
        lambda session: workers.remove_worker(session, "nobody"),
    ],
)
def test_a_worker_that_does_not_exist_is_named(verb: object) -> None:
    with pytest.raises(Unknown, match="'nobody'"):
        _do(verb)


# Removal


def test_a_worker_with_jobs_is_not_removed() -> None:
    worker = enlist()
    offered(worker)
    with pytest.raises(LedgerError, match="holds 1 job"):
        _do(workers.remove_worker, worker.name)
    assert worker_row(worker.id).revoked_at is None


def test_a_removed_worker_is_revoked_and_no_longer_listed() -> None:
    worker = enlist()
    _do(workers.remove_worker, worker.name)
    assert _list() == []
    record = _do(workers.by_credential, worker_row(worker.id).credential_hash)
    assert isinstance(record, WorkerRecord) and record.revoked
    with pytest.raises(Unknown):
        _do(workers.set_intent, worker.name, IntentMode.SERVE, by="me")


def test_jobs_of_a_revoked_worker_run_on_until_they_are_lost() -> None:
    worker = enlist()
    lease = running(worker)
    _do(workers.revoke_worker, worker.name)
    assert job_row(lease.job_id).state == "running"


# What is read


def test_presence_is_what_central_observes() -> None:
    online, silent, never, revoked = (enlist(name) for name in ("a-online", "b-silent", "c-never", "d-revoked"))
    last_seen(silent.id, ago(seconds=100))
    last_seen(never.id, None)
    _do(workers.revoke_worker, revoked.name)
    assert {row.name: row.presence for row in _list()} == {
        online.name: "online",
        silent.name: "silent",
        never.name: "gone",
        revoked.name: "gone",
    }


def test_used_slots_are_those_of_offers_and_running_jobs() -> None:
    busy, idle = enlist("busy", slots=8), enlist("idle")
    running(busy, slots=3)
    offered(busy, slots=2)
    assert {row.name: row.used_slots for row in _list()} == {busy.name: 5, idle.name: 0}
    assert [row.name for row in _list("idle")] == ["idle"]
    assert _list("nobody") == []


def test_seen_is_one_statement_for_the_whole_fleet() -> None:
    fleet = [enlist(f"w{i}") for i in range(3)]
    for worker in fleet:
        last_seen(worker.id, None)
    _do(workers.seen, [worker.id for worker in fleet[:2]])
    with compat.transaction() as session:
        seen = {row.worker_id for row in session.scalars(select(Presence).where(Presence.last_seen_at.is_not(None)))}
    assert seen == {fleet[0].id, fleet[1].id}


def test_a_contact_is_no_change_that_other_processes_must_read() -> None:
    worker = enlist()
    before = worker_row(worker.id).changed_at
    _do(workers.seen, [worker.id])
    assert worker_row(worker.id).changed_at == before


@pytest.mark.parametrize(
    "change",
    [
        lambda session, worker: workers.set_intent(session, worker.name, IntentMode.DRAIN, by="me"),
        lambda session, worker: workers.limit_slots(session, worker.name, 1, by="me"),
        lambda session, worker: workers.revoke_worker(session, worker.name),
        lambda session, worker: workers.remove_worker(session, worker.name),
        lambda session, worker: workers.open_session(session, worker.id, session_request()),
    ],
    ids=["intent", "limit", "revoke", "remove", "session"],
)
def test_other_processes_read_what_changed(change: object) -> None:
    worker, _other = enlist("changed"), enlist("other")
    since = max(record.changed_at for record in _changed(None))
    _do(change, worker)
    assert "changed" in [record.name for record in _changed(since + timedelta(microseconds=1))]
    assert len(_changed(None)) == 2
