from __future__ import annotations

import json
from pathlib import Path

from airflow_remote_worker.config import KeepLogs
from airflow_remote_worker.jobs.logs import append_line, trim
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.spool import Spool
from airflow_remote_worker.state import State

from ..conftest import make_offer  # noqa: TID252


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


def test_half_a_line_of_a_killed_task_stays_apart(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text('{"event": "whole"}\n{"event": "ha')
    append_line(log, "x", at=0)
    assert len(log.read_text().splitlines()) == 3
    append_line(log, "y", at=0)
    assert len(log.read_text().splitlines()) == 4


def test_old_logs_go(state: State) -> None:
    spool = Spool(state.jobs, state.quarantine)
    old, young = closed(spool, "a", at=0), closed(spool, "b", at=86_400 * 9)
    assert trim(spool, KeepLogs(days=5), now=86_400 * 10) == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_the_oldest_go_when_there_is_too_much(state: State) -> None:
    spool = Spool(state.jobs, state.quarantine)
    paths = [closed(spool, name, at=n, size=600_000) for n, name in enumerate("abc")]
    trim(spool, KeepLogs(days=99, total_mb=1.5), now=10)
    assert [path.exists() for path in paths] == [False, True, True]


def test_what_is_running_or_owed_never_goes(state: State) -> None:
    spool = Spool(state.jobs, state.quarantine)
    job = spool.of(Lease("a", 1))
    job.store_offer(make_offer("a"))
    trim(spool, KeepLogs(days=0, total_mb=0), now=1e12)
    assert job.path.exists()
