from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
from airflow_remote_worker.config import KeepLogs
from airflow_remote_worker.jobs.logs import LogKeeper, append_line, truncate_log
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import Spool

from ..conftest import HandClock, make_offer


def closed(spool: Spool, job_id: str, at: float, size: int = 10) -> Path:
    job = spool.of(Lease(job_id, 1))
    job.store_offer(make_offer(job_id))
    job.task_log.write_bytes(b"x" * size)
    job.close("acknowledged", at)
    return job.path


def test_a_line_is_json_that_the_task_log_reader_knows(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    append_line(log, "what, why, what to do", at=0)
    assert json.loads(log.read_text()) == {
        "timestamp": "1970-01-01T00:00:00Z",
        "level": "error",
        "event": "what, why, what to do",
        "logger": "airflow_remote_worker",
    }


def test_a_killed_task_s_unfinished_line_is_ended_first(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text('{"event": "whole"}\n{"event": "ha')
    append_line(log, "x", at=0)
    assert len(log.read_text().splitlines()) == 3
    append_line(log, "y", at=0)
    assert len(log.read_text().splitlines()) == 4


def keeper(state: State, now: float, **keep: float) -> LogKeeper:
    clock = HandClock()
    clock.now = now - clock.wall() + clock.now
    return LogKeeper(
        Spool(state.jobs, quarantine=state.quarantine), quarantine=state.quarantine, keep=KeepLogs(**keep), clock=clock
    )


def test_old_logs_are_removed(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    old, young = closed(spool, "a", at=0), closed(spool, "b", at=86_400 * 9)
    assert keeper(state, now=86_400 * 10, days=5).trim() == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_the_oldest_are_removed_when_the_total_is_too_large(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    paths = [closed(spool, name, at=n, size=600_000) for n, name in enumerate("abc")]
    keeper(state, now=10, days=99, total_mb=1.5).trim()
    assert [path.exists() for path in paths] == [False, True, True]


def test_a_full_disk_removes_the_oldest_whatever_their_age(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    paths = [closed(spool, name, at=n, size=600_000) for n, name in enumerate("abc")]
    keeper(state, now=10).trim(wanted=700_000)
    assert [path.exists() for path in paths] == [False, False, True]


def test_running_and_undelivered_jobs_are_never_removed(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    job = spool.of(Lease("a", 1))
    job.store_offer(make_offer("a"))
    keeper(state, now=1e12, days=0, total_mb=0).trim(wanted=10**9)
    assert job.path.exists()


def test_the_quarantine_is_limited_like_logs(state: State) -> None:
    state.quarantine.mkdir()
    for n in range(3):
        (state.quarantine / f"report.json.{n}").write_bytes(b"x" * 600_000)
        os.utime(state.quarantine / f"report.json.{n}", (n, n))
    keeper(state, now=10, total_mb=1.5).trim()
    assert sorted(path.name for path in state.quarantine.iterdir()) == ["report.json.1", "report.json.2"]
    keeper(state, now=86_400 * 99, total_mb=1.5).trim()
    assert list(state.quarantine.iterdir()) == []


def test_an_excess_is_removed_soon_after_a_job_has_closed(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    logs = keeper(state, now=10, total_mb=1)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(logs.run, list)
            with anyio.fail_after(60):
                while not logs._clock.naps:  # type: ignore[attr-defined]
                    path = spool.of(Lease("a", 1)).path
                    if not path.exists():
                        closed(spool, "a", at=0, size=1_500_000)
                    logs.note_closed(spool.of(Lease("a", 1)))
                    await anyio.sleep(0.05)
                    if not path.exists():
                        break
                while path.exists():
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    anyio.run(main)


def test_an_oversized_log_of_our_own_is_truncated_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "zygote.log"
    with path.open("ab") as writer:
        writer.write(b"x" * 2000)
        writer.flush()
        truncate_log(path, longest=1000)
        writer.write(b"later\n")
    assert path.read_text() == "… 2000 bytes were dropped here: longer than 1000\nlater\n"
    truncate_log(path, longest=1000)
    assert "later" in path.read_text()
