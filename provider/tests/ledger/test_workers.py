"""Intents, rights and removal of workers, and the records that API processes keep."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from testkit.ledger import ago, audit_entries, enlist, job_row, set_last_seen, offered, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import sessions, suspension, workers
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.views.workers import WorkerRow, list_workers
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.models import Worker, WorkerContact

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _by_credential(worker_id: str) -> object:
    digest = worker_row(worker_id).credential_hash
    found = _do(workers.by_credentials, [digest])
    assert isinstance(found, dict)
    return found[digest]


def _list() -> list[WorkerRow]:
    with compat.transaction() as session:
        return list_workers(session, silent_after=SILENT).rows


def _changed(since: object) -> list[WorkerRecord]:
    with compat.transaction() as session:
        return workers.changed_since(session, since)  # type: ignore[arg-type]


# Sessions


def test_a_change_is_later_than_all_earlier_ones_even_if_the_clock_is_set_back() -> None:
    """Otherwise an API process that has seen the later change would miss it, and a revoked worker would continue."""
    ahead, worker = enlist("ahead"), enlist("worker")
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.id == ahead.id).values(changed_at=ago(days=-1)))
    newest = worker_row(ahead.id).changed_at
    _do(sessions.open_session, worker.id, session_request())
    opened = worker_row(worker.id).changed_at
    _do(workers.revoke_worker, worker.name)
    assert newest < opened < worker_row(worker.id).changed_at


# Intents


def test_every_change_of_intent_raises_the_revision() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", reason="maintenance")
    _do(workers.limit_slots, worker.name, 2, by="bob")
    record = _by_credential(worker.id)
    assert isinstance(record, WorkerRecord)
    intent = record.intent
    assert (intent.mode, intent.revision, intent.slots, intent.reason) == (IntentMode.PAUSE, 3, 2, "maintenance")
    row = worker_row(worker.id)
    assert row.intent_by == "bob" and row.intent_at is not None


def test_a_limit_can_be_removed() -> None:
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
def test_an_unknown_worker_is_named_in_the_error(verb: object) -> None:
    with pytest.raises(NotFound, match="'nobody'"):
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
    record = _by_credential(worker.id)
    assert isinstance(record, WorkerRecord) and record.revoked
    with pytest.raises(NotFound):
        _do(workers.set_intent, worker.name, IntentMode.SERVE, by="me")


def test_jobs_of_a_revoked_worker_run_on_until_they_are_lost() -> None:
    worker = enlist()
    lease = running(worker)
    _do(workers.revoke_worker, worker.name)
    assert job_row(lease.job_id).state == "running"


# Reads


def test_contacts_are_noted_only_for_the_named_workers() -> None:
    fleet = [enlist(f"w{i}") for i in range(3)]
    for worker in fleet:
        set_last_seen(worker.id, None)
    _do(workers.note_contact, [worker.id for worker in fleet[:2]])
    with compat.transaction() as session:
        seen = {row.worker_id for row in session.scalars(select(WorkerContact).where(WorkerContact.last_seen_at.is_not(None)))}
    assert seen == {fleet[0].id, fleet[1].id}


def test_a_contact_does_not_count_as_a_change() -> None:
    worker = enlist()
    before = worker_row(worker.id).changed_at
    _do(workers.note_contact, [worker.id])
    assert worker_row(worker.id).changed_at == before


@pytest.mark.parametrize(
    "change",
    [
        lambda session, worker: workers.set_intent(session, worker.name, IntentMode.DRAIN, by="me"),
        lambda session, worker: workers.limit_slots(session, worker.name, 1, by="me"),
        lambda session, worker: workers.revoke_worker(session, worker.name),
        lambda session, worker: workers.remove_worker(session, worker.name),
        lambda session, worker: sessions.open_session(session, worker.id, session_request()),
    ],
    ids=["intent", "limit", "revoke", "remove", "session"],
)
def test_other_processes_read_what_changed(change: object) -> None:
    worker, _other = enlist("changed"), enlist("other")
    since = max(record.changed_at for record in _changed(None))
    _do(change, worker)
    assert "changed" in [record.name for record in _changed(since + timedelta(microseconds=1))]
    assert len(_changed(None)) == 2


def test_an_acknowledged_alarm_is_cleared_and_stays_in_the_audit() -> None:
    worker = enlist()
    _do(sessions.flag_clone, worker.id)
    alarm = worker_row(worker.id).alarm
    assert alarm
    _do(workers.acknowledge, worker.name, by="ann")
    assert worker_row(worker.id).alarm == ""
    [entry] = audit_entries("action", worker=worker.name)
    assert entry.actor == "ann" and alarm in entry.detail
    assert audit_entries("clone")
    with pytest.raises(LedgerError, match="has no alarm"):
        _do(workers.acknowledge, worker.name, by="ann")


def test_the_alarm_of_a_suspended_worker_is_only_cleared_with_the_suspension() -> None:
    worker = enlist()
    _do(suspension.suspend, worker.name, by="ann", reason="odd")
    with pytest.raises(LedgerError, match=f"unsuspend {worker.name}"):
        _do(workers.acknowledge, worker.name, by="ann")
    assert worker_row(worker.id).alarm


def _row(name: str = "worker") -> WorkerRow:
    return next(row for row in _list() if row.name == name)


def test_an_intent_is_pending_until_the_worker_confirms_it() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann")
    assert not _row().intent_heard
    revision = worker_row(worker.id).intent_revision
    _do(workers.note_received_intent, worker.id, revision - 1)
    assert not _row().intent_heard
    _do(workers.note_received_intent, worker.id, revision + 7)
    assert _row().intent_heard
    _do(workers.limit_slots, worker.name, 1, by="ann")
    assert not _row().intent_heard, "a revision that the worker made up does not count"
    _do(sessions.open_session, worker.id, session_request())
    assert _row().intent_heard, "the reply to its session contains the intent"


def test_a_pause_ends_by_itself_and_is_audited() -> None:
    worker, other = enlist(), enlist("other")
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", reason="patching", lasts=timedelta(hours=2))
    _do(workers.set_intent, other.name, IntentMode.PAUSE, by="ann")
    until = _row().intent_until
    assert until is not None and timedelta(minutes=119) < until - ago() < timedelta(minutes=121)
    assert _do(workers.end_intents) == 0
    with compat.transaction() as session:
        session.get(Worker, worker.id).intent_until = ago(seconds=1)
    assert _do(workers.end_intents) == 1
    row = _row()
    assert (row.intent, row.intent_reason, row.intent_by, row.intent_until) == ("serve", "", "central", None)
    assert _row("other").intent == "pause"
    assert audit_entries("action", worker=worker.name)[0].actor == "central"


def test_another_intent_replaces_the_duration_of_the_first() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", lasts=timedelta(hours=2))
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="bob")
    assert _row().intent_until is None


@pytest.mark.parametrize(
    ("mode", "lasts"),
    [
        (IntentMode.SERVE, timedelta(hours=1)),
        (IntentMode.DRAIN, timedelta(hours=1)),
        (IntentMode.PAUSE, timedelta()),
        (IntentMode.PAUSE, timedelta(days=400)),
    ],
)
def test_only_a_pause_of_some_length_can_end_by_itself(mode: IntentMode, lasts: timedelta) -> None:
    worker = enlist()
    with pytest.raises(LedgerError, match="only a pause"):
        _do(workers.set_intent, worker.name, mode, by="ann", lasts=lasts)
    assert _row().intent == "serve"
