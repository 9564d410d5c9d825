"""The periodic work: one round stores presence, keeps the duty and looks for open jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from testkit.ledger import (  # isort: skip
    Enlisted,
    ago,
    change_job,
    record_statements,
    enlist,
    job_row,
    set_last_seen,
    offered,
    queued,
    running,
)

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties.loop import Duties
from airflow_remote_provider.api.duties.observation import ObservationWindow
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import duty
from airflow_remote_provider.ledger.expired_offers import OfferRules
from airflow_remote_provider.models import Duty, WorkerContact
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")


def _run(check: Callable[[LedgerPool], Awaitable[None]], pool: LedgerPool | None = None) -> None:
    async def run() -> None:
        used = pool or LedgerPool(1)
        try:
            await check(used)
        finally:
            used.close()

    asyncio.run(run())


def _was_seen(worker: Enlisted) -> bool:
    with compat.transaction() as session:
        presence = session.get(WorkerContact, worker.id)
    return presence is not None and presence.last_seen_at is not None


def test_a_round_is_one_short_transaction_for_any_fleet_size(database: Engine) -> None:
    fleet = [enlist(f"w{n}") for n in range(5)]
    for worker in fleet:
        set_last_seen(worker.id, None)

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        await duties._run_round()  # takes the duty
        for worker in fleet:
            duties.note_contact(worker.id)
        with record_statements(database) as statements:
            assert await duties._run_round()
        assert len(statements) == 3, "\n".join(statements)

    _run(check)
    assert all(_was_seen(worker) for worker in fleet)


def test_only_one_process_has_the_duty() -> None:
    async def check(pool: LedgerPool) -> None:
        first, second = Duties(pool, settings()), Duties(pool, settings())
        assert (await first._run_round(), await second._run_round(), await first._run_round()) == (True, False, True)

    _run(check)


def test_the_loop_is_busy_only_while_a_job_is_open() -> None:
    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.mark_busy()
        await duties._run_round()
        assert not duties._busy
        await asyncio.to_thread(queued)
        await duties._run_round()
        assert duties._busy

    _run(check)


def test_mark_busy_during_a_round_counts() -> None:
    class Slow(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            answer = await super().call(verb, *args, **kwargs)
            duties[0].mark_busy()  # the answer is older than this
            return answer

    duties: list[Duties] = []

    async def check(pool: LedgerPool) -> None:
        duties.append(Duties(pool, settings()))
        await duties[0]._run_round()
        assert duties[0]._busy

    _run(check, Slow(1))


def test_contacts_of_a_failed_round_are_stored_by_the_next() -> None:
    worker = enlist()
    set_last_seen(worker.id, None)

    class Failing(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await super().call(verb, *args, **kwargs)

    failures: list[Exception] = [OperationalError("UPDATE", {}, Exception("the database is away"))]

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.note_contact(worker.id)
        with pytest.raises(OperationalError):
            await duties._run_round()
        await duties._run_round()

    _run(check, Failing(1))
    assert _was_seen(worker)


# Silence counts only while central could receive calls


def _silent_job() -> str:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(hours=10))
    set_last_seen(worker.id, ago(hours=9))
    return lease.job_id


def test_after_a_downtime_of_central_no_job_is_lost_until_its_worker_could_come_back() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        job_id = await asyncio.to_thread(_silent_job)
        duties = clock.duties(pool)
        for waited_s in range(0, 170, 10):
            assert await duties._run_round()
            await pool.call(duties._mark_lost)
            assert job_row(job_id).state == "running", f"central is back for only {waited_s} s"
            clock.now += 10
        for _ in range(2):
            await duties._run_round()
            await pool.call(duties._mark_lost)
            clock.now += 10
        assert job_row(job_id).state == "lost"

    clock.run(check)


def test_a_worker_that_comes_back_within_the_window_keeps_its_jobs() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        worker = await asyncio.to_thread(enlist)
        lease = await asyncio.to_thread(running, worker, lost_after_s=60)
        change_job(lease.job_id, accepted_at=ago(hours=10))
        set_last_seen(worker.id, ago(hours=9))
        duties = clock.duties(pool)
        for step in range(30):
            if step == 15:
                duties.note_contact(worker.id)
            await duties._run_round()
            await pool.call(duties._mark_lost)
            clock.now += 10
        assert job_row(lease.job_id).state == "running"

    clock.run(check)


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1), timedelta(minutes=10), timedelta(minutes=-10)], ids=str)
def test_a_changed_database_clock_loses_no_job_and_no_offer(jump: timedelta) -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        worker = await asyncio.to_thread(enlist)
        offer = await asyncio.to_thread(offered, worker)
        lease = await asyncio.to_thread(running, worker, lost_after_s=60)
        duties = clock.duties(pool)
        for _ in range(30):
            duties.note_contact(worker.id)
            await duties._run_round()
            clock.now += 10
        # As its rows look once the clock is set: stamped long ago, or in the future.
        set_last_seen(worker.id, ago() - jump)
        change_job(lease.job_id, accepted_at=ago(hours=10) - jump)
        change_job(offer.job_id, deadline_at=ago(seconds=-30) - jump)
        clock.offset += jump
        await pool.call(duties._expire_offers, OfferRules(4, timedelta(seconds=5)))
        await pool.call(duties._mark_lost)
        assert (job_row(offer.job_id).state, job_row(lease.job_id).state) == ("offered", "running")
        deadline = job_row(offer.job_id).deadline_at
        assert deadline is not None and ago(seconds=-10) < deadline < ago(seconds=-60)

    clock.run(check)


def test_the_next_holder_of_the_duty_starts_its_own_observation_window() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        first, second = clock.duties(pool), clock.duties(pool)
        for _ in range(30):
            assert (await first._run_round(), await second._run_round()) == (True, False)
            clock.now += 10
        assert first._observation.has_lasted and not second._observation.has_lasted
        with compat.transaction() as session:
            session.execute(update(Duty).values(until=ago(seconds=1)))
        assert await second._run_round()
        assert not await first._run_round()
        assert not first._observation.has_lasted and not second._observation.has_lasted

    clock.run(check)


class Clock:
    """The machine's monotonic clock, set by the test. The database's clock runs with it until the test sets that, too.

    The times in the rows come from the real database's clock.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = timedelta()

    def duties(self, pool: LedgerPool) -> Duties:
        duties = Duties(pool, settings())
        duties._observation = ObservationWindow(settings().reconnect_seconds, monotonic=lambda: self.now)
        return duties

    def run(self, check: Callable[[LedgerPool], Awaitable[None]]) -> None:
        start, look = ago(), duty.check_open_jobs

        def database_now(_session: Session) -> datetime:
            return start + timedelta(seconds=self.now - 1000) + self.offset

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("airflow_remote_provider.api.duties.loop.database_now", database_now)
            patch.setattr(duty, "check_open_jobs", lambda session: (database_now(session), look(session)[1]))
            _run(check)
