"""A worker's own log, as it comes in: cheap for central, bounded for each worker, gone with the worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import counted, enlist  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.insist import refused, succeeded
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


def test_a_chunk_asks_the_database_for_nothing(central: ServedCentral) -> None:
    caller = Caller.at_work(central)
    with counted(compat.engine()) as statements:
        for offset in range(15):
            succeeded(caller.worker_log("a", offset, b"x"), LogAppended)
    assert all(times < 15 for times in Counter(statements).values()), "central's own rounds may come between"


def test_who_sends_without_pause_is_busy_and_its_jobs_and_others_are_not(central: ServedCentral) -> None:
    wild, other = Caller.at_work(central), Caller.at_work(central)
    offer = wild.start_job()
    answers = [wild.worker_log("a", 0, b"") for _ in range(int(WORKER_LOG_CALLS_PER_S * BURST_S) * 2)]
    assert answers[0].status == 200
    refused(answers[-1], ProblemCode.BUSY)
    assert int(answers[-1].headers["retry-after"]) > 0
    succeeded(wild.log(offer, 0, b"a task's line\n"), LogAppended)
    succeeded(other.worker_log("a", 0, b"a line\n"), LogAppended)


@pytest.mark.usefixtures("database")
def test_a_log_goes_when_its_worker_is_known_no_more() -> None:
    known, store = enlist("known"), WorkerLogStore(100)
    for worker_id in (known.id, "forgotten"):
        store.append(worker_id, "a", 0, b"x")

    async def purge() -> None:
        pool = LedgerPool(1)
        try:
            await pool.call(Duties(pool, settings())._purge_own_logs)
        finally:
            pool.close()

    asyncio.run(purge())
    assert store.worker_ids() == {known.id}
