from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import ShimRecord, Spool

from ..conftest import make_offer


@pytest.fixture
def spool(state: State) -> Spool:
    return Spool(state.jobs, quarantine=state.quarantine)


def test_stored_files_are_read_back_unchanged(spool: Spool) -> None:
    offer = make_offer("a", 3)
    job = spool.of(Lease("a", 3))
    job.store_offer(offer)
    job.store_shim(ShimRecord(7, 1.5, "mark"))
    job.store_report(Report(outcome=Outcome.FAILED, exit_code=2))
    (found,) = spool
    assert found.lease == Lease("a", 3)
    assert bytes(found.offer().workload) == bytes(offer.workload)
    assert found.shim() == ShimRecord(7, 1.5, "mark")
    assert found.report() == Report(outcome=Outcome.FAILED, exit_code=2)


def test_a_lease_can_t_be_stored_twice(spool: Spool) -> None:
    spool.of(Lease("a", 1)).store_offer(make_offer("a"))
    with pytest.raises(FileExistsError):
        spool.of(Lease("a", 1)).store_offer(make_offer("a"))


def test_a_closed_job_keeps_its_logs_and_no_key(spool: Spool) -> None:
    job = spool.of(Lease("a", 1))
    job.store_offer(make_offer("a"))
    (job.path / "job.json").write_text('{"key": "secret"}')
    job.task_log.write_text("hello")
    job.close("acknowledged", 5.0)
    assert sorted(file.name for file in job.path.iterdir()) == ["closed.json", "task.log"]
    found = job.closed()
    assert found and (found.how, found.at) == ("acknowledged", 5.0)


def test_a_partly_written_file_counts_as_damaged_not_missing(spool: Spool) -> None:
    job = spool.of(Lease("a", 1))
    job.store_offer(make_offer("a"))
    for name in ("offer.json", "offer.json.copy"):
        (job.path / name).write_bytes(b'{"job_id": "a"')
    with pytest.raises(Damaged):
        job.offer()
    spool.put_aside(job)
    assert list(spool) == []


def test_a_directory_without_an_offer_counts_as_damaged(spool: Spool) -> None:
    job = spool.of(Lease("a", 1))
    job.path.mkdir()
    with pytest.raises(Damaged, match=r"no offer\.json"):
        job.offer()


@pytest.mark.parametrize("job_id", ["../../etc", "a/b", "", "a.b", ".."])
def test_no_job_id_leads_out_of_the_directory(spool: Spool, job_id: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        spool.of(Lease(job_id, 1))


def test_other_files_are_ignored(spool: Spool, state: State) -> None:
    (state.jobs / "lost+found").mkdir()
    (state.jobs / "note.txt").write_text("x")
    assert list(spool) == []
    assert Path(state.jobs / "lost+found").exists()
