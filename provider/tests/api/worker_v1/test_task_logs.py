"""A log path belongs to the newest job that was accepted on it; late chunks of an older job are stored beside it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import claim, enlist, job_row, offered, queued, running  # isort: skip

from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER
from airflow_remote_provider import compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.worker_v1 import task_logs
from airflow_remote_provider.api.worker_v1.task_logs import TaskLogs
from airflow_remote_provider.ledger import leases
from airflow_remote_provider.ledger.errors import Superseded
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.stores import WrongOffset
from airflow_remote_provider.stores.task_logs import FileLogStore

pytestmark = pytest.mark.usefixtures("database")


def _run(check: Callable[[LedgerPool, TaskLogs], Awaitable[None]], store: FileLogStore | None = None) -> None:
    async def run() -> None:
        pool = LedgerPool(2)
        try:
            await check(pool, TaskLogs(pool, store or FileLogStore()))
        finally:
            pool.close()

    asyncio.run(run())


def _resume(first: WorkerLease, *, concluded: bool = True) -> WorkerLease:
    """Let the first job's task defer, and resume as another job of the same try on another worker."""
    row = job_row(first.job_id)
    with compat.transaction() as session:
        if concluded:
            leases.conclude(session, first, done=True)
    worker = enlist("another")
    queued(with_task=False, ti_id=row.ti_id, log_path=row.log_path)
    second = worker.lease(claim(worker.claimant())[0])
    with compat.transaction() as session:
        leases.accept(session, second)
    return second


def _file(lease: WorkerLease) -> Path:
    return compat.base_log_folder() / job_row(lease.job_id).log_path


def _beside(lease: WorkerLease) -> Path:
    file = _file(lease)
    return file.with_name(f"{file.name}.{lease.job_id}.{lease.epoch}.log")


async def _append(logs: TaskLogs, lease: WorkerLease, offset: int, body: bytes) -> int:
    return await logs.append(lease, offset, lambda: body)


def test_the_resumed_job_continues_the_file_without_lines_of_the_old_one() -> None:
    first = running(enlist())

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        assert await _append(logs, first, 0, b"first\n") == 6
        second = await asyncio.to_thread(_resume, first)
        assert await _append(logs, second, 0, b"second\n") == 7
        assert await _append(logs, first, 6, b"late\n") == 11, "the old worker continues without an error"
        assert await _append(logs, second, 7, b"third\n") == 13
        assert await _append(logs, first, 11, b"later\n") == 17
        assert await _append(logs, first, 6, b"late\n") == 17, "a repeat is recognized here, too"
        assert _file(first).read_bytes() == b"first\nsecond\nthird\n"
        assert _beside(first).read_bytes() == b"late\nlater\n"

    _run(check)


def test_the_old_jobs_last_lines_may_arrive_before_the_new_jobs_first_line() -> None:
    first = running(enlist())

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        await _append(logs, first, 0, b"first\n")
        second = await asyncio.to_thread(_resume, first)
        assert await _append(logs, first, 6, b"late\n") == 11
        assert await _append(logs, second, 0, b"second\n") == 7
        assert (_file(first).read_bytes(), _beside(first).read_bytes()) == (b"first\nsecond\n", b"late\n")

    _run(check)


def test_an_old_job_that_sends_its_first_line_late_does_not_get_the_path() -> None:
    first = running(enlist())

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        second = await asyncio.to_thread(_resume, first)
        await _append(logs, second, 0, b"second\n")
        assert await _append(logs, first, 0, b"all of it\n") == 10
        assert await _append(logs, second, 7, b"third\n") == 13
        assert (_file(first).read_bytes(), _beside(first).read_bytes()) == (b"second\nthird\n", b"all of it\n")

    _run(check)


def test_no_offset_of_an_old_worker_reaches_the_new_jobs_part() -> None:
    first = running(enlist())

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        await _append(logs, first, 0, b"first\n")
        second = await asyncio.to_thread(_resume, first)
        await _append(logs, second, 0, b"second\n")
        for offset in (13, 7, 5, 1000):
            with pytest.raises(WrongOffset) as step:
                await _append(logs, first, offset, b"forged\n")
            assert step.value.size == 6
        assert await _append(logs, second, 7, b"third\n") == 13
        assert _file(first).read_bytes() == b"first\nsecond\nthird\n"

    _run(check)


def test_a_chunk_in_flight_during_the_takeover_is_stored_beside() -> None:
    """The chunk was checked, and then delayed (a full lane, a slow disk) until the new job has begun."""
    first = running(enlist())
    arrived, proceed = threading.Event(), threading.Event()

    class SlowStore(FileLogStore):
        def append(self, path: str, *, base: int, offset: int, body: bytes, **how: Callable[[], None]) -> int:
            if body == b"late\n" and not arrived.is_set():
                arrived.set()
                proceed.wait(20)
            return super().append(path, base=base, offset=offset, body=body, **how)

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        await _append(logs, first, 0, b"first\n")
        late = asyncio.ensure_future(_append(logs, first, 6, b"late\n"))
        await asyncio.to_thread(arrived.wait, 20)
        second = await asyncio.to_thread(_resume, first)
        await _append(logs, second, 0, b"second\n")
        proceed.set()
        assert await late == 11
        assert await _append(logs, second, 7, b"third\n") == 13
        assert (_file(first).read_bytes(), _beside(first).read_bytes()) == (b"first\nsecond\nthird\n", b"late\n")

    _run(check, SlowStore())


def test_a_lease_that_was_superseded_is_refused_with_the_next_chunk() -> None:
    worker = enlist()
    lease = offered(worker)

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        await _append(logs, lease, 0, b"first\n")
        await pool.call(leases.withdraw, [lease])
        with pytest.raises(Superseded):
            await _append(logs, lease, 6, b"late\n")
        assert _file(lease).read_bytes() == b"first\n"

    _run(check)


def test_the_remembered_places_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_logs, "MOST_PLACES", 1)
    worker = enlist()
    one, two = running(worker), running(worker)

    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        for offset, body in ((0, b"a\n"), (2, b"b\n")):
            for lease in (one, two):
                await _append(logs, lease, offset, body)
        assert len(logs._places) == 1
        assert _file(one).read_bytes() == _file(two).read_bytes() == b"a\nb\n"

    _run(check)


def test_an_accepted_job_has_a_log_file() -> None:
    worker = enlist()
    by_call, by_run = offered(worker), offered(worker)
    with ServedCentral() as central:
        for lease, method, path in (
            (by_call, "POST", f"jobs/{by_call.job_id}/accept"),
            (by_run, "PATCH", f"jobs/{by_run.job_id}/execution/task-instances/{job_row(by_run.job_id).ti_id}/run"),
        ):
            assert not _file(lease).exists()
            headers = {
                "authorization": f"Bearer {worker.credential}",
                MARKER_HEADER: PROTOCOL_VERSION,
                SESSION_HEADER: worker.session_id,
                EPOCH_HEADER: str(lease.epoch),
            }
            answer = central.request(method, path, headers=headers, body=json.dumps({"pid": 1}).encode())
            assert answer.status < 300, answer.body
            assert _file(lease).read_bytes() == b""


def test_a_failure_to_create_the_log_file_does_not_stop_the_task(caplog: pytest.LogCaptureFixture) -> None:
    async def check(pool: LedgerPool, logs: TaskLogs) -> None:
        await logs.create(f"{'x' * 300}.log")

    _run(check)
    assert "Can't create the empty log file" in caplog.text
