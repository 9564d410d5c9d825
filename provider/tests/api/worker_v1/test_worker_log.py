"""Receiving worker logs: cheap for central, limited for each worker, removed with the worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import record_statements, enlist  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import LogAppended
from airflow_remote_provider import compat
from airflow_remote_provider.api.admission.rate_limits import BURST_S, WORKER_LOG_CALLS_PER_S
from airflow_remote_provider.api.duties.loop import Duties
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.worker_logs import WorkerLogStore
from sqlalchemy import Engine


@pytest.fixture
def central(database: Engine) -> Iterator[ServedCentral]:
    with ServedCentral() as served:
        yield served


def test_a_chunk_costs_no_database_query(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    with record_statements(compat.engine()) as statements:
        for offset in range(15):
            expect_message(caller.worker_log("a", offset, b"x"), LogAppended)
    assert all(times < 15 for times in Counter(statements).values()), "central's own rounds may run meanwhile"


def test_a_worker_that_sends_without_pause_gets_busy_but_its_jobs_and_others_do_not(central: ServedCentral) -> None:
    wild, other = Caller.connect(central), Caller.connect(central)
    offer = wild.start_job()
    answers = [wild.worker_log("a", 0, b"") for _ in range(int(WORKER_LOG_CALLS_PER_S * BURST_S) * 2)]
    assert answers[0].status == 200
    expect_refusal(answers[-1], ProblemCode.BUSY)
    assert int(answers[-1].headers["retry-after"]) > 0
    expect_message(wild.log(offer, 0, b"a task's line\n"), LogAppended)
    expect_message(other.worker_log("a", 0, b"a line\n"), LogAppended)


@pytest.mark.usefixtures("database")
def test_a_log_is_removed_with_its_worker() -> None:
    known, store = enlist("known"), WorkerLogStore(100)
    for worker_id in (known.id, "forgotten"):
        store.append(worker_id, stretch="a", offset=0, body=b"x")

    async def purge() -> None:
        pool = LedgerPool(1)
        try:
            await pool.call(Duties(pool, settings())._purge_worker_logs)
        finally:
            pool.close()

    asyncio.run(purge())
    assert store.worker_ids() == {known.id}
