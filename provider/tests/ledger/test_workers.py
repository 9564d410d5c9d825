"""Sessions, wishes, and what people and API processes read of workers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from testkit.ledger import ago, audited, enlist, job_row, last_seen, offered, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import Enrolment, Facts, HeldJob, IntentMode, JobPhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, sessions, suspension, workers
from airflow_remote_provider.ledger.credentials import NewToken
from airflow_remote_provider.ledger.errors import Cloned, LedgerError, Revoked, Unknown
from airflow_remote_provider.ledger.views.audit import AuditRow
from airflow_remote_provider.ledger.views.serving import capacities
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


def _audit() -> list[AuditRow]:
    """What happened since the workers have joined."""
    return [entry for entry in audited() if entry.kind not in ("action", "enrolled")]


def _changed(since: object) -> list[WorkerRecord]:
    with compat.transaction() as session:
        return workers.changed_since(session, since)  # type: ignore[arg-type]


# Sessions


def test_the_same_instance_takes_over_at_once() -> None:
    worker = enlist()
    record = _do(sessions.open_session, worker.id, session_request(slots=9))
    assert isinstance(record, WorkerRecord)
    assert record.session_id not in (None, worker.session_id)
    assert record.slots == 9


def test_another_instance_is_refused_and_changes_nothing() -> None:
    worker = enlist()
    with pytest.raises(Cloned, match="enrol create --replaces worker"):
        _do(sessions.open_session, worker.id, session_request(instance_id="copy", slots=99))
    row = worker_row(worker.id)
    assert (row.session_id, row.instance_id, row.slots, row.alarm) == (worker.session_id, "instance", 4, "")


def test_a_clone_is_flagged() -> None:
    worker = enlist()
    _do(sessions.flag_clone, worker.id)
    assert "another installation" in _list()[0].alarm


def test_a_restart_of_a_live_worker_is_noted() -> None:
    worker = enlist("edge-1")
    for _ in range(2):
        _do(sessions.open_session, worker.id, session_request())
    (entry,) = _audit()
    assert (entry.kind, entry.worker, entry.times) == ("takeover", "edge-1", 2)


def test_a_start_after_a_silence_is_no_takeover() -> None:
    worker = enlist()
    last_seen(worker.id, ago(minutes=5))
    _do(sessions.open_session, worker.id, session_request())
    assert _audit() == []


def test_a_start_that_was_taken_over_and_speaks_again_is_the_first_of_two() -> None:
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
    assert worker_row(worker.id).session_id == row.session_id, "the first one is not disturbed again"
    job = job_row(lease.job_id)
    assert (job.state, job.missing_since) == ("running", None)


def test_a_start_that_was_taken_over_long_ago_has_lost_its_place() -> None:
    worker = enlist()
    first = worker_row(worker.id).boot_id
    _do(sessions.open_session, worker.id, session_request(boot_id="later"))
    with compat.transaction() as session:
        session.execute(update(Worker).values(session_at=ago(minutes=11)))
    with pytest.raises(Cloned):
        _do(sessions.open_session, worker.id, session_request(boot_id=first or ""))
    assert worker_row(worker.id).boot_id == "later"


def test_the_same_start_may_open_a_session_again() -> None:
    worker = enlist()
    boot = worker_row(worker.id).boot_id or ""
    _do(sessions.open_session, worker.id, session_request(boot_id=boot))
    row = worker_row(worker.id)
    assert (row.boot_id, row.previous_boot_id, row.alarm) == (boot, None, "")
    assert _audit() == []


def test_a_database_restored_from_a_backup_loses_nothing() -> None:
    """The row knows an older start, the job's row an older epoch; the worker's session is unknown."""
    worker = enlist()
    kept, ended_since = running(worker), running(worker)
    with compat.transaction() as session:
        session.execute(update(Worker).values(boot_id="of the backup", session_id="of the backup", changed_at=ago(days=3)))
    last_seen(worker.id, ago(days=3))
    _do(sessions.open_session, worker.id, session_request(jobs=[HeldJob(kept.job_id, kept.epoch, JobPhase.RUNNING)]))
    assert (worker_row(worker.id).alarm, job_row(kept.job_id).state) == ("", "running")
    assert job_row(ended_since.job_id).missing_since is not None, "its end came after the backup; Airflow retries it"


@pytest.mark.parametrize(
    ("off_s", "told"), [(0, None), (-30, None), (600, 600), (-86_400, -86_400), (1e300, sessions.WIDEST_OFFSET_S)]
)
def test_a_worker_whose_clock_is_off_is_listed_so(off_s: float, told: float | None) -> None:
    worker = enlist()
    _do(sessions.open_session, worker.id, session_request(time=ago().timestamp() + off_s))
    shown = _list()[0].clock_off_s
    assert shown == told if told is None else shown == pytest.approx(told, abs=5)


def test_a_worker_that_tells_no_time_is_not_off() -> None:
    worker = enlist()
    _do(sessions.open_session, worker.id, session_request())
    assert worker_row(worker.id).clock_offset_s is None


def test_a_change_is_later_than_any_before_whatever_the_clock_says() -> None:
    """Else an API process that has seen the later one would not see it, and a revoked worker would work on."""
    ahead, worker = enlist("ahead"), enlist("worker")
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.id == ahead.id).values(changed_at=ago(days=-1)))
    newest = worker_row(ahead.id).changed_at
    _do(sessions.open_session, worker.id, session_request())
    opened = worker_row(worker.id).changed_at
    _do(workers.revoke_worker, worker.name)
    assert newest < opened < worker_row(worker.id).changed_at


def test_a_revoked_worker_opens_no_session() -> None:
    worker = enlist()
    _do(workers.revoke_worker, worker.name)
    for worker_id in (worker.id, "never heard of"):
        with pytest.raises(Revoked):
            _do(sessions.open_session, worker_id, session_request())


def test_a_session_reconciles_what_the_worker_holds() -> None:
    worker = enlist()
    kept, forgotten = running(worker), offered(worker)
    _do(sessions.open_session, worker.id, session_request(jobs=[HeldJob(kept.job_id, kept.epoch, JobPhase.RUNNING)]))
    assert (job_row(kept.job_id).state, job_row(forgotten.job_id).state) == ("running", "queued")


def test_a_refused_session_touches_no_job() -> None:
    worker = enlist()
    lease = running(worker)
    with pytest.raises(Cloned):
        _do(sessions.open_session, worker.id, session_request(instance_id="copy"))
    assert job_row(lease.job_id).state == "running"


def test_a_session_is_a_contact() -> None:
    worker = enlist()
    last_seen(worker.id, None)
    _do(sessions.open_session, worker.id, session_request())
    assert _list()[0].presence == "online"


# Wishes


def test_every_wish_raises_the_revision() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", reason="maintenance")
    _do(workers.limit_slots, worker.name, 2, by="bob")
    record = _by_credential(worker.id)
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
    record = _by_credential(worker.id)
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
    online, silent, revoked, ended = (enlist(name) for name in ("a-online", "b-silent", "d-revoked", "e-ended"))
    last_seen(silent.id, ago(seconds=100))
    _do(workers.revoke_worker, revoked.name)
    _do(sessions.end_session, ended.id, ended.session_id)
    token, _ = _do(credentials.create_token, NewToken(queues=["q"]))  # type: ignore[misc]
    never = _do(credentials.enrol, token, Enrolment("c-never", Facts()))
    _do(workers.seen, [never.worker_id])  # type: ignore[attr-defined] # by `check`, say
    assert {row.name: row.presence for row in _list()} == {
        online.name: "online",
        silent.name: "silent",
        "c-never": "never_connected",
        ended.name: "offline",
        revoked.name: "gone",
    }


def test_a_worker_whose_daemon_ended_is_online_again_with_its_next_session_and_that_is_no_takeover() -> None:
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


def test_used_slots_are_those_of_offers_and_running_jobs() -> None:
    busy, idle = enlist("busy", slots=8), enlist("idle")
    running(busy, slots=3)
    offered(busy, slots=2)
    assert {row.name: row.used_slots for row in _list()} == {busy.name: 5, idle.name: 0}


def test_seen_is_one_statement_for_the_whole_fleet() -> None:
    fleet = [enlist(f"w{i}") for i in range(3)]
    for worker in fleet:
        last_seen(worker.id, None)
    _do(workers.seen, [worker.id for worker in fleet[:2]])
    with compat.transaction() as session:
        seen = {row.worker_id for row in session.scalars(select(WorkerContact).where(WorkerContact.last_seen_at.is_not(None)))}
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


def test_an_alarm_that_somebody_has_looked_at_is_cleared_and_stays_in_the_audit() -> None:
    worker = enlist()
    _do(sessions.flag_clone, worker.id)
    alarm = worker_row(worker.id).alarm
    assert alarm
    _do(workers.acknowledge, worker.name, by="ann")
    assert worker_row(worker.id).alarm == ""
    [entry] = audited("action", worker=worker.name)
    assert entry.actor == "ann" and alarm in entry.detail
    assert audited("clone")
    with pytest.raises(LedgerError, match="has no alarm"):
        _do(workers.acknowledge, worker.name, by="ann")


def test_the_alarm_of_a_suspended_worker_goes_with_the_suspension_only() -> None:
    worker = enlist()
    _do(suspension.suspend, worker.name, by="ann", reason="odd")
    with pytest.raises(LedgerError, match=f"unsuspend {worker.name}"):
        _do(workers.acknowledge, worker.name, by="ann")
    assert worker_row(worker.id).alarm


def _row(name: str = "worker") -> WorkerRow:
    return next(row for row in _list() if row.name == name)


def test_a_wish_is_unheard_until_the_worker_acts_by_it() -> None:
    worker = enlist()
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann")
    assert not _row().intent_heard
    revision = worker_row(worker.id).intent_revision
    _do(workers.note_heard, worker.id, revision - 1)
    assert not _row().intent_heard
    _do(workers.note_heard, worker.id, revision + 7)
    assert _row().intent_heard
    _do(workers.limit_slots, worker.name, 1, by="ann")
    assert not _row().intent_heard, "however far ahead it claims to be"
    _do(sessions.open_session, worker.id, session_request())
    assert _row().intent_heard, "the answer to its session tells it"


def test_a_pause_ends_by_itself_and_central_says_so() -> None:
    worker, other = enlist(), enlist("other")
    _do(workers.set_intent, worker.name, IntentMode.PAUSE, by="ann", reason="patching", lasts=timedelta(hours=2))
    _do(workers.set_intent, other.name, IntentMode.PAUSE, by="ann")
    until = _row().intent_until
    assert until is not None and timedelta(minutes=119) < until - ago() < timedelta(minutes=121)
    assert _do(workers.end_wishes) == 0
    with compat.transaction() as session:
        session.get(Worker, worker.id).intent_until = ago(seconds=1)
    assert _do(workers.end_wishes) == 1
    row = _row()
    assert (row.intent, row.intent_reason, row.intent_by, row.intent_until) == ("serve", "", "central", None)
    assert _row("other").intent == "pause"
    assert audited("action", worker=worker.name)[0].actor == "central"


def test_another_wish_ends_the_term_of_the_first() -> None:
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
