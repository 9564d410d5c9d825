from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from airflow_remote_provider.api.worker_v1 import started_jobs
from airflow_remote_provider.api.worker_v1.started_jobs import StartedJobs
from airflow_remote_provider.ledger.fence import WorkerLease

LEASE = WorkerLease("worker", "job", 1)


class Ledger:
    def __init__(self) -> None:
        self.stored: list[WorkerLease] = []

    async def store(self, lease: WorkerLease) -> None:
        self.stored.append(lease)


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_job_has_begun_once_it_has_written_and_costs_the_ledger_nothing() -> None:
    seen, ledger = StartedJobs(), Ledger()
    seen.note_start(LEASE)
    assert seen.has_begun(LEASE) is False
    _run(seen.note_write(LEASE, store=ledger.store))
    assert seen.has_begun(LEASE) is True
    assert ledger.stored == []


def test_a_write_of_a_job_that_started_at_another_process_is_stored_once() -> None:
    seen, ledger = StartedJobs(), Ledger()
    assert seen.has_begun(LEASE) is None
    for _ in range(3):
        _run(seen.note_write(LEASE, store=ledger.store))
    assert ledger.stored == [LEASE]


def test_a_repeated_start_forgets_no_write() -> None:
    seen = StartedJobs()
    seen.note_start(LEASE)
    _run(seen.note_write(LEASE, store=Ledger().store))
    seen.note_start(LEASE)
    assert seen.has_begun(LEASE) is True


def test_the_remembered_jobs_are_limited(monkeypatch: Any) -> None:
    monkeypatch.setattr(started_jobs, "MOST_KEPT", 2)
    seen = StartedJobs()
    for number in range(5):
        seen.note_start(WorkerLease("worker", str(number), 1))
    assert [seen.has_begun(WorkerLease("worker", str(number), 1)) for number in range(5)] == [None, None, None, False, False]
    seen.forget(WorkerLease("worker", "4", 1))
    assert seen.has_begun(WorkerLease("worker", "4", 1)) is None
