"""State machine test of the job table: several workers make calls late, twice, out of order, or about jobs of others.

Only the callers are simulated; the functions of the ledger run on a SQLite file, in one transaction each. After each step the
whole table is compared with its previous state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from sqlalchemy import select

from testkit.ledger import (  # isort: skip
    Enlisted,
    ago,
    change_job,
    change_task,
    claim,
    enlist,
    set_last_seen,
    queued,
    session_request,
)

from airflow_remote_protocol.messages import HeldJob, JobPhase, Outcome, Report
from airflow_remote_protocol.states import MOVES, JobState
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import ended_tasks, expired_offers, jobs, leases, lost_jobs, retention, sessions, workers
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.models import Job

from testkit.ledger_machine import LedgerMachine
from testkit.machines import search

OWNERS = ("1/", "2/")
RULES = expired_offers.OfferRules(attempts=3, delay=timedelta())
FOR_EVER = ("state", "epoch", "worker_id", "outcome", "exit_code", "ended_at", "stop_reason")
"""Columns of an ended job that never change again."""

Row = dict[str, Any]


class JobsMachine(LedgerMachine):
    def __init__(self) -> None:
        super().__init__()
        self.workers = [enlist("a", slots=2), enlist("b", slots=3)]
        self.leases: list[WorkerLease] = []
        """Every lease ever given."""
        self.reported: Counter[tuple[str, str]] = Counter()
        """How often the end of a job was reported to each owner since it last adopted the job."""
        self.before: dict[str, Row] = {}
        for slots in (1, 2, 1, 2):
            self.a_job_is_queued(slots, "1/")
        self.polls_are_answered_with_offers({0, 1}, 1)
        self.before = self._table()

    # The executor and users

    @rule(slots=st.integers(1, 3), owner=st.sampled_from(OWNERS))
    def a_job_is_queued(self, slots: int, owner: str) -> None:
        queued(slots=slots, owner=owner)

    @rule(owner=st.sampled_from(OWNERS))
    def an_executor_reads_ended_jobs(self, owner: str) -> None:
        for job in self._do(jobs.settle, owner):
            row = self._table()[job.job_id]
            assert job.state.value == row["state"] and job.state.is_ended
            assert self.before[job.job_id]["owner"] == owner, "only its owner reads the end of a job"
            self.reported[owner, job.job_id] += 1
            assert self.reported[owner, job.job_id] == 1, f"{job.job_id} is settled twice"

    @rule(data=st.data(), owner=st.sampled_from(OWNERS))
    def a_scheduler_adopts(self, data: st.DataObject, owner: str) -> None:
        job_id = self._some_job(data)
        if self._do(jobs.adopt, [job_id], owner):
            for one in OWNERS:
                self.reported.pop((one, job_id), None)
            assert self._table()[job_id]["owner"] == owner

    @rule(data=st.data())
    def the_executor_revokes(self, data: st.DataObject) -> None:
        self._do(jobs.revoke, self._some_job(data))

    @rule(data=st.data(), state=st.sampled_from(["failed", "success", None]))
    def a_user_ends_or_clears_a_task(self, data: st.DataObject, state: str | None) -> None:
        change_task(self._table()[self._some_job(data)]["ti_id"], state=state)
        self._do(ended_tasks.stop_ended)

    # Time

    @rule()
    def deadlines_pass(self) -> None:
        for row in self._table().values():
            if row["state"] == "offered":
                change_job(row["id"], deadline_at=ago(minutes=1))
        self._do(expired_offers.expire_offers, RULES)

    @rule(data=st.data())
    def a_worker_is_silent_for_too_long(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        set_last_seen(worker.id, ago(hours=2))
        for row in self._table().values():
            if row["worker_id"] == worker.id and row["state"] == "running":
                change_job(row["id"], accepted_at=ago(hours=2))  # accepting was a contact, too
        self._do(lost_jobs.lose_silent)
        self._do(workers.note_contact, [worker.id])
        assert not [row for row in self._table().values() if row["worker_id"] == worker.id and row["state"] == "running"]

    @rule()
    def history_is_purged(self) -> None:
        """Jobs that are not settled stay."""
        unsettled = {id for id, row in self._table().items() if row["settled_at"] is None and row["concluded_at"] is None}
        self._do(retention.purge, older_than=timedelta(seconds=-1))  # in the same microsecond, too
        assert unsettled <= set(self._table())
        self.before = {id: row for id, row in self.before.items() if id in self._table()}

    # Workers

    @rule(who=st.sets(st.sampled_from([0, 1]), min_size=1), free=st.integers(1, 5))
    def polls_are_answered_with_offers(self, who: set[int], free: int) -> None:
        """Polls may claim more free slots than the worker has, as one does that was sent before the previous offers arrived."""
        for row in self._table().values():
            if row["not_before"] is not None:  # independent of the clock, so that a repeated run does the same
                change_job(row["id"], not_before=None)
        for claimed in claim(*(self.workers[number].claimant(free) for number in sorted(who))):
            self.leases.append(WorkerLease(claimed.worker_id, claimed.job_id, claimed.epoch))

    @rule(slots=st.integers(1, 2))
    def a_job_is_queued_offered_and_accepted(self, slots: int) -> None:
        """The usual case."""
        queued(slots=slots, priority=9)
        self.polls_are_answered_with_offers({0, 1}, 5)
        self.only_legal_moves_were_made()
        self._call(leases.accept, self.leases[-1])

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def offers_are_withdrawn(self, data: st.DataObject) -> None:
        self._do(leases.withdraw, data.draw(st.lists(st.sampled_from(self.leases), max_size=3)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def a_job_is_accepted(self, data: st.DataObject) -> None:
        lease = self._some_lease(data)
        if self._call(leases.accept, lease):
            assert self._table()[lease.job_id]["state"] == "running"

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def an_offer_is_declined(self, data: st.DataObject) -> None:
        self._call(lambda session, lease: leases.decline(session, lease, "no room", delay=timedelta()), self._some_lease(data))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), done=st.booleans())
    def a_task_reports_its_terminal_state(self, data: st.DataObject, done: bool) -> None:
        self._call(lambda session, lease: leases.conclude(session, lease, done=done), self._some_lease(data))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)), times=st.integers(1, 2))
    def a_job_is_reported(self, data: st.DataObject, outcome: Outcome, times: int) -> None:
        lease = self._some_lease(data)
        for _ in range(times):
            self._call(lambda session, lease: leases.report(session, lease, Report(outcome, exit_code=1)), lease, again=True)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), phase=st.sampled_from(list(JobPhase)))
    def a_poll_lists_jobs(self, data: st.DataObject, phase: JobPhase) -> None:
        lease = self._some_lease(data)
        held = [HeldJob(lease.job_id, lease.epoch, phase)]
        stops = self._do(leases.renew, lease.worker_id, held, deadline=timedelta(seconds=30), prepare=timedelta(hours=1))
        row = self._table().get(lease.job_id)
        wanted = row is not None and self._is_open(lease, row) and row["stop_reason"] is None
        assert bool(stops) == (not wanted and phase not in (JobPhase.STOPPING, JobPhase.ENDED))

    @rule(data=st.data(), grace_passes=st.booleans())
    def a_worker_comes_back(self, data: st.DataObject, grace_passes: bool) -> None:
        """It lists some of its jobs, and some that are not its own any more. Missing running jobs are lost after a grace."""
        number = data.draw(st.sampled_from([0, 1]))
        old = self.workers[number]
        theirs = [lease for lease in self.leases if lease.worker_id == old.id]
        kept = data.draw(st.lists(st.sampled_from(theirs), unique=True)) if theirs else []
        held = [HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING) for lease in kept]
        record = self._do(sessions.open_session, old.id, session_request(old.slots, jobs=held))
        self.workers[number] = Enlisted(old.id, old.name, record.session_id, old.credential, old.slots)
        listed = {(lease.job_id, lease.epoch) for lease in kept}
        if grace_passes:
            self._do(lost_jobs.lose_missing, grace=timedelta(seconds=-1))
        leased = [row for row in self._table().values() if row["worker_id"] == old.id and JobState(row["state"]).is_leased]
        unlisted = [row for row in leased if (row["id"], row["epoch"]) not in listed]
        assert all(row["state"] == "running" and row["missing_since"] and not grace_passes for row in unlisted), unlisted

    # Invariants

    @invariant()
    def only_legal_moves_were_made(self) -> None:
        after = self._table()
        for job_id, was in self.before.items():
            now = after[job_id]
            old, new = JobState(was["state"]), JobState(now["state"])
            assert old is new or new in {to for (at, _), to in MOVES.items() if at is old}, f"{old} → {new}"
            assert now["epoch"] - was["epoch"] == (old is not new and new is JobState.OFFERED), (
                "an epoch rises with an offer only"
            )
            if old.is_ended:
                assert [now[name] for name in FOR_EVER] == [was[name] for name in FOR_EVER], (
                    f"an ended job changed: {was} → {now}"
                )
        self.before = after

    @invariant()
    def no_worker_holds_more_than_its_slots(self) -> None:
        used: Counter[str] = Counter()
        for row in self._table().values():
            if JobState(row["state"]).is_leased:
                used[row["worker_id"]] += row["slots"]
        for worker in self.workers:
            assert used[worker.id] <= worker.slots, f"{worker.name} holds {used[worker.id]} slots of {worker.slots}"

    @invariant()
    def one_lease_of_a_job_is_open_at_most(self) -> None:
        table = self._table()
        open_ones = Counter(
            lease.job_id for lease in self.leases if (row := table.get(lease.job_id)) and self._is_open(lease, row)
        )
        assert max(open_ones.values(), default=0) <= 1

    def teardown(self) -> None:
        """Every job ends, and its owner reads its end."""
        try:
            for lease in self.leases:
                self._call(lambda session, lease: leases.report(session, lease, Report(Outcome.STOPPED)), lease, again=True)
            for job_id in self._table():
                self._do(jobs.revoke, job_id)
            for owner in OWNERS:
                self.an_executor_reads_ended_jobs(owner)
            left = [row for row in self._table().values() if not JobState(row["state"]).is_ended or row["owner"]]
            assert not left, left
        finally:
            super().teardown()

    # Helpers

    def _call(self, verb: Callable[[Any, WorkerLease], object], lease: WorkerLease, *, again: bool = False) -> bool:
        """Call *verb* as a worker. A call of an outdated lease must be refused, except, with *again*, a repeated report."""
        was = self._table().get(lease.job_id)
        try:
            self._do(verb, lease)
        except LedgerError:
            assert self._table().get(lease.job_id) == was, "a refused call changed something"
            return False
        assert was is not None, "a deleted job was found"
        if not self._is_open(lease, was):
            assert again and was["outcome"] is not None, f"a late call was accepted: {lease}, {was}"
            assert (lease.worker_id, lease.epoch) == (was["worker_id"], was["epoch"])
            assert self._table()[lease.job_id] == was, "a repeat changed something"
        return True

    def _do(self, verb: Callable[..., Any], *arguments: object, **more: object) -> Any:
        with compat.transaction() as session:
            return verb(session, *arguments, **more)

    @staticmethod
    def _is_open(lease: WorkerLease, row: Row) -> bool:
        return (row["worker_id"], row["epoch"]) == (lease.worker_id, lease.epoch) and JobState(row["state"]).is_leased

    def _some_lease(self, data: st.DataObject) -> WorkerLease:
        """Return mostly one of the newest leases, sometimes one with another epoch or worker."""
        lease = data.draw(st.sampled_from(self.leases[-4:] * 3 + self.leases))
        forged = data.draw(st.sampled_from([None] * 2 + ["worker", "epoch"]))
        if forged == "worker":
            return WorkerLease(
                next(worker.id for worker in self.workers if worker.id != lease.worker_id), lease.job_id, lease.epoch
            )
        return WorkerLease(lease.worker_id, lease.job_id, lease.epoch + data.draw(st.sampled_from([-1, 1]))) if forged else lease

    def _some_job(self, data: st.DataObject) -> str:
        table = self._table()
        if not table:
            self.a_job_is_queued(1, "1/")
            table = self._table()
        return data.draw(st.sampled_from(sorted(table, key=lambda id: (table[id]["queued_at"], id))))

    def _table(self) -> dict[str, Row]:
        with compat.transaction() as session:
            rows = session.execute(select(*Job.__table__.columns)).mappings().all()
        return {row["id"]: dict(row) for row in rows}


def test_the_job_table_stays_consistent_whatever_the_callers_do() -> None:
    search(JobsMachine, examples=25, steps=30)
