"""Long lists of jobs in :mod:`ledger.leases`: their cost is bounded by the jobs that are leased, not by those listed."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from testkit.ledger import Enlisted, ago, change_job, claim, record_statements, enlist, job_row, queued, running  # isort: skip

from airflow_remote_protocol.messages import HeldJob, JobPhase, Stop, StopReason
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import fence, leases


def _renewed(worker: Enlisted, *held: HeldJob) -> list[Stop]:
    with compat.transaction() as session:
        return leases.renew(session, worker.id, held, deadline=timedelta(seconds=30), prepare=timedelta(hours=1))


def test_a_list_of_many_leased_jobs_renews_each_of_them(database: Engine) -> None:
    worker = enlist(slots=3 * fence.MOST_LOOKED_UP)
    jobs = [queued() for _ in range(3 * fence.MOST_LOOKED_UP)]
    claimed = [job for _ in range(3) for job in claim(worker.claimant())]
    assert len(claimed) == len(jobs)
    change_job(claimed[0].job_id, missing_since=ago(seconds=5))
    change_job(claimed[-1].job_id, stop_reason="cleared")
    before = job_row(claimed[1].job_id).deadline_at
    with record_statements(database) as statements:
        stops = _renewed(worker, *(HeldJob(job.job_id, job.epoch, JobPhase.PREPARING) for job in claimed))
    assert [(stop.job_id, stop.reason) for stop in stops] == [(claimed[-1].job_id, StopReason.CLEARED)]
    assert job_row(claimed[0].job_id).missing_since is None
    after = job_row(claimed[1].job_id).deadline_at
    assert before is not None and after is not None and after > before
    assert len([statement for statement in statements if "remote_job" in statement]) <= 4
    with compat.transaction() as session:
        assert leases.count_leased(session, worker.id) == len(jobs)


def test_foreign_jobs_in_a_list_are_stopped_some_at_a_time(database: Engine) -> None:
    worker = enlist()
    lease = running(worker)
    phases = {f"{number:036d}": JobPhase.RUNNING for number in range(2 * fence.MOST_LOOKED_UP + 5)}
    rounds = 0
    while JobPhase.RUNNING in phases.values():
        listed = [HeldJob(job_id, 1, phase) for job_id, phase in phases.items()]
        stops = _renewed(worker, *listed, HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING))
        assert 0 < len(stops) <= fence.MOST_LOOKED_UP
        assert {stop.reason for stop in stops} == {StopReason.SUPERSEDED}
        phases |= {stop.job_id: JobPhase.STOPPING for stop in stops}
        rounds += 1
    assert rounds == 3


def test_one_job_listed_ten_thousand_times_is_looked_up_once(database: Engine) -> None:
    worker = enlist()
    with record_statements(database) as statements:
        stops = _renewed(worker, *(HeldJob("made-up", number, JobPhase.RUNNING) for number in range(10_000)))
    assert len(stops) == fence.MOST_LOOKED_UP
    [asked] = [statement for statement in statements if "remote_job" in statement]
    assert asked.count("?") + asked.count("%(") + asked.count("%s") <= 3
