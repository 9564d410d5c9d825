"""A recently confirmed lease is not queried again, and is forgotten as soon as it may have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine

from testkit.ledger import change_job, claim, record_statements, enlist, queued  # isort: skip

from airflow_remote_provider.api.gateway import lease_cache
from airflow_remote_provider.api.gateway.lease_cache import LeaseCache
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import fence, leases
from airflow_remote_provider.ledger.errors import LeaseLapsed, Superseded
from airflow_remote_provider.ledger.fence import WorkerLease

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def lease() -> WorkerLease:
    worker = enlist()
    queued()
    return worker.lease(claim(worker.claimant())[0])


def _run(check: Callable[[LeaseCache], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(1)
        try:
            await check(LeaseCache(pool))
        finally:
            pool.close()

    asyncio.run(run())


def test_a_confirmed_lease_is_not_queried_again(database: Engine, lease: WorkerLease) -> None:
    async def check(known: LeaseCache) -> None:
        ti_id = await known.confirm(lease, leases.accept)
        with record_statements(database) as statements:
            assert await known.get_subject(lease) == ti_id
        assert not statements

    _run(check)


def test_a_lease_is_queried_again_after_the_cache_time(lease: WorkerLease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_cache, "HOLDS_S", 0.0)

    async def check(known: LeaseCache) -> None:
        await known.get_subject(lease)
        change_job(lease.job_id, epoch=lease.epoch + 1)
        with pytest.raises(Superseded):
            await known.get_subject(lease)

    _run(check)


def test_a_job_that_was_taken_back_is_refused_at_once(lease: WorkerLease) -> None:
    async def check(known: LeaseCache) -> None:
        await known.get_subject(lease)
        change_job(lease.job_id, state="revoked")
        known.forget_all()
        with pytest.raises(Superseded):
            await known.get_subject(lease)

    _run(check)


def test_an_answer_from_before_forget_all_is_not_kept(lease: WorkerLease) -> None:
    async def check(known: LeaseCache) -> None:
        def interrupted(session: object, asked: WorkerLease) -> None:
            change_later.append(True)
            known.forget_all()

        change_later: list[bool] = []
        await known.confirm(lease, interrupted)
        assert change_later
        change_job(lease.job_id, state="revoked")
        with pytest.raises(Superseded):
            await known.get_subject(lease)

    _run(check)


@pytest.mark.parametrize("other", ["worker", "epoch"])
def test_a_confirmed_lease_does_not_confirm_another(lease: WorkerLease, other: str) -> None:
    async def check(known: LeaseCache) -> None:
        await known.get_subject(lease)
        foreign = (
            WorkerLease("another", lease.job_id, lease.epoch)
            if other == "worker"
            else WorkerLease(lease.worker_id, lease.job_id, 99)
        )
        with pytest.raises(Exception, match=r"no job|is for epoch"):
            await known.get_subject(foreign)

    _run(check)


def test_old_answers_are_dropped(lease: WorkerLease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_cache, "HOLDS_S", 0.0)

    async def check(known: LeaseCache) -> None:
        for _ in range(3):
            await known.confirm(lease, fence.check)
        assert len(known._confirmed) <= 1

    _run(check)


def test_a_refused_lease_is_not_cached(lease: WorkerLease) -> None:
    async def check(known: LeaseCache) -> None:
        await known.get_subject(lease)
        change_job(lease.job_id, state="revoked")
        with pytest.raises(Superseded):
            await known.confirm(lease, fence.check)
        with pytest.raises(Superseded):
            await known.get_subject(lease)

    _run(check)


def test_a_task_that_has_ended_is_refused_at_once(lease: WorkerLease) -> None:
    async def check(known: LeaseCache) -> None:
        await known.confirm(lease, leases.accept)
        await known.get_subject(lease)
        await known.end_lease(lease, lambda session, lease: leases.conclude(session, lease, done=True))
        with pytest.raises(LeaseLapsed):
            await known.get_subject(lease)

    _run(check)


def test_an_answer_from_before_the_tasks_end_is_not_kept(lease: WorkerLease) -> None:
    """The question is asked before the end is stored, and answered after that has begun."""

    async def check(known: LeaseCache) -> None:
        await known.confirm(lease, leases.accept)
        known.forget(lease)
        asking = asyncio.ensure_future(known.get_subject(lease))
        await asyncio.sleep(0)
        await known.end_lease(lease, lambda session, lease: leases.conclude(session, lease, done=True))
        await asyncio.gather(asking, return_exceptions=True)
        with pytest.raises(LeaseLapsed):
            await known.get_subject(lease)

    _run(check)
