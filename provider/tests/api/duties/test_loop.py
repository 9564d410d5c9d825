"""What time asks for: one round writes presence, keeps the duty and looks whether there is anything to watch."""

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
    counted,
    enlist,
    job_row,
    last_seen,
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


def test_a_round_is_one_short_transaction_whatever_the_fleet(database: Engine) -> None:
    fleet = [enlist(f"w{n}") for n in range(5)]
    for worker in fleet:
        last_seen(worker.id, None)

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        await duties._round()  # takes the duty
        for worker in fleet:
            duties.heard(worker.id)
        with counted(database) as statements:
            assert await duties._round()
        assert len(statements) == 3, "\n".join(statements)

    _run(check)
    assert all(_was_seen(worker) for worker in fleet)


def test_only_one_process_has_the_duty() -> None:
    async def check(pool: LedgerPool) -> None:
        first, second = Duties(pool, settings()), Duties(pool, settings())
        assert (await first._round(), await second._round(), await first._round()) == (True, False, True)

    _run(check)


def test_an_open_job_keeps_it_busy_and_none_lets_it_rest() -> None:
    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.mark_busy()
        await duties._round()
        assert not duties._busy
        await asyncio.to_thread(queued)
        await duties._round()
        assert duties._busy

    _run(check)


def test_what_stirs_during_a_round_counts() -> None:
    class Slow(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            answer = await super().call(verb, *args, **kwargs)
            duties[0].mark_busy()  # the answer is older than this
            return answer

    duties: list[Duties] = []

    async def check(pool: LedgerPool) -> None:
        duties.append(Duties(pool, settings()))
        await duties[0]._round()
        assert duties[0]._busy

    _run(check, Slow(1))


def test_who_was_heard_in_a_failed_round_is_written_by_the_next() -> None:
    worker = enlist()
    last_seen(worker.id, None)

    class Failing(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await super().call(verb, *args, **kwargs)

    failures: list[Exception] = [OperationalError("UPDATE", {}, Exception("the database is away"))]

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.heard(worker.id)
        with pytest.raises(OperationalError):
            await duties._round()
        await duties._round()

    _run(check, Failing(1))
    assert _was_seen(worker)


# Silence counts only while somebody is there to hear it


def _silent_job() -> str:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(hours=10))
    last_seen(worker.id, ago(hours=9))
    return lease.job_id


def test_after_a_downtime_of_central_no_job_is_lost_until_its_worker_could_come_back() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        job_id = await asyncio.to_thread(_silent_job)
        duties = clock.duties(pool)
        for waited_s in range(0, 170, 10):
            assert await duties._round()
            await pool.call(duties._lose)
            assert job_row(job_id).state == "running", f"central is back for {waited_s} s only"
            clock.now += 10
        for _ in range(2):
            await duties._round()
            await pool.call(duties._lose)
            clock.now += 10
        assert job_row(job_id).state == "lost"

    clock.run(check)


def test_a_worker_that_comes_back_within_the_window_keeps_its_jobs() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        worker = await asyncio.to_thread(enlist)
        lease = await asyncio.to_thread(running, worker, lost_after_s=60)
        change_job(lease.job_id, accepted_at=ago(hours=10))
        last_seen(worker.id, ago(hours=9))
        duties = clock.duties(pool)
        for step in range(30):
            if step == 15:
                duties.heard(worker.id)
            await duties._round()
            await pool.call(duties._lose)
            clock.now += 10
        assert job_row(lease.job_id).state == "running"

    clock.run(check)


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1), timedelta(minutes=10), timedelta(minutes=-10)], ids=str)
def test_a_database_whose_clock_is_set_loses_no_job_and_no_offer(jump: timedelta) -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        worker = await asyncio.to_thread(enlist)
        offer = await asyncio.to_thread(offered, worker)
        lease = await asyncio.to_thread(running, worker, lost_after_s=60)
        duties = clock.duties(pool)
        for _ in range(30):
            duties.heard(worker.id)
            await duties._round()
            clock.now += 10
        # As its rows look once the clock is set: stamped long ago, or in the future.
        last_seen(worker.id, ago() - jump)
        change_job(lease.job_id, accepted_at=ago(hours=10) - jump)
        change_job(offer.job_id, deadline_at=ago(seconds=-30) - jump)
        clock.offset += jump
        await pool.call(duties._expire_offers, OfferRules(4, timedelta(seconds=5)))
        await pool.call(duties._lose)
        assert (job_row(offer.job_id).state, job_row(lease.job_id).state) == ("offered", "running")
        deadline = job_row(offer.job_id).deadline_at
        assert deadline is not None and ago(seconds=-10) < deadline < ago(seconds=-60)

    clock.run(check)


def test_a_handed_over_duty_begins_a_vigil_of_its_own() -> None:
    clock = Clock()

    async def check(pool: LedgerPool) -> None:
        first, second = clock.duties(pool), clock.duties(pool)
        for _ in range(30):
            assert (await first._round(), await second._round()) == (True, False)
            clock.now += 10
        assert first._observation.has_lasted and not second._observation.has_lasted
        with compat.transaction() as session:
            session.execute(update(Duty).values(until=ago(seconds=1)))
        assert await second._round()
        assert not await first._round()
        assert not first._observation.has_lasted and not second._observation.has_lasted

    clock.run(check)


class Clock:
    """This machine's monotonic clock in our hand; the database's runs beside it, until it is set.

    The rows' own times are the real database's: it does not notice that we hurry.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = timedelta()

    def duties(self, pool: LedgerPool) -> Duties:
        duties = Duties(pool, settings())
        duties._observation = ObservationWindow(settings().reconnect_seconds, monotonic=lambda: self.now)
        return duties

    def run(self, check: Callable[[LedgerPool], Awaitable[None]]) -> None:
        start, look = ago(), duty.look

        def database_now(_session: Session) -> datetime:
            return start + timedelta(seconds=self.now - 1000) + self.offset

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("airflow_remote_provider.api.duties.loop.database_now", database_now)
            patch.setattr(duty, "look", lambda session: (database_now(session), look(session)[1]))
            _run(check)
