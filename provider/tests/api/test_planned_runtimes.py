"""The plan in memory: loaded when it is needed, loaded again when it has changed, and no statement in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine

from testkit.ledger import record_statements  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.planned_runtimes import PlannedRuntimes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import rollouts
from airflow_remote_provider.ledger.assignments import Host

from testkit.runtimes import LINUX, build, edition

pytestmark = pytest.mark.usefixtures("database")


def _run(check: Callable[[PlannedRuntimes], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(1)
        try:
            await check(PlannedRuntimes(pool))
        finally:
            pool.close()

    asyncio.run(run())


def _host(*ready: str) -> Host:
    return Host("w", ("q",), LINUX, ready=frozenset(ready))


def test_nothing_is_read_before_a_worker_needs_it(database: Engine) -> None:
    async def check(planned: PlannedRuntimes) -> None:
        with record_statements(database) as statements:
            await planned.refresh()
        assert statements == []

    _run(check)


def test_the_plan_is_loaded_once_and_lists_cost_no_statement(database: Engine) -> None:
    build()

    async def check(planned: PlannedRuntimes) -> None:
        with record_statements(database) as statements:
            await asyncio.gather(planned.load(), planned.load())
        assert len(statements) == 5, statements
        with record_statements(database) as statements:
            listed = planned.list_for(_host())
            assert planned.list_for(_host()) is listed
            await planned.load()
        assert statements == []
        (ref,) = listed.wanted
        assert (ref.name, ref.serial, ref.tree.digest, len(listed.revision)) == ("default", 1, edition("default", 1), 32)

    _run(check)


def test_a_refresh_takes_one_statement_and_reports_a_change_once(database: Engine) -> None:
    build()

    async def check(planned: PlannedRuntimes) -> None:
        changes: list[int] = []
        planned.on_change = lambda: changes.append(len(planned.plan.editions["default"]))
        await planned.load()
        with record_statements(database) as statements:
            await planned.refresh()
        assert (len(statements), changes) == (1, [])
        before = planned.list_for(_host()).revision
        build()
        await planned.refresh()
        assert changes == [2]
        assert planned.list_for(_host()).revision == before, "serial 2 is not rolled out"
        with compat.transaction() as session:
            rollouts.roll(session, rollouts.of_runtime("default"), by="ann")
        await planned.refresh()
        assert planned.list_for(_host()).revision != before
        assert planned.wants(_host(), edition("default", 2)) and not planned.wants(_host(), edition("default", 1))

    _run(check)


def test_callers_that_catch_up_at_the_same_time_share_a_refresh(database: Engine) -> None:
    build()

    async def check(planned: PlannedRuntimes) -> None:
        await planned.catch_up()
        assert planned.plan.rollouts == {}, "not needed yet"
        await planned.load()
        with record_statements(database) as statements:
            await asyncio.gather(*(planned.catch_up() for _ in range(50)))
        assert len(statements) <= 2
        with compat.transaction() as session:
            rollouts.assign_queue(session, "q", "default", by="ann")
        await planned.catch_up()
        assert planned.plan.queues == {"q": "default"}

    _run(check)


def test_the_revision_differs_by_what_is_kept() -> None:
    build()
    build()
    with compat.transaction() as session:
        rollouts.roll(session, rollouts.of_runtime("default"), by="ann")
    build()
    with compat.transaction() as session:
        rollouts.roll(session, rollouts.of_runtime("default"), by="ann")

    async def check(planned: PlannedRuntimes) -> None:
        await planned.load()
        first = edition("default", 1)
        assert planned.list_for(_host()).kept == [edition("default", 2)]
        assert planned.list_for(_host(first)).kept == [edition("default", 2), first]
        assert planned.list_for(_host(first)).revision != planned.list_for(_host()).revision

    _run(check)


def test_a_queue_is_served_where_its_runtime_is_ready() -> None:
    build()

    async def check(planned: PlannedRuntimes) -> None:
        await planned.load()
        assert planned.serves(None, "q")
        assert not planned.serves(_host(), "q")
        assert planned.serves(_host(edition("default", 1)), "q")

    _run(check)
