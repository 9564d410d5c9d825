from __future__ import annotations

from airflow_remote_worker.jobs import breaker
from airflow_remote_worker.jobs.breaker import Breaker


def test_consecutive_failures_open_the_breaker_and_a_job_that_begins_closes_it() -> None:
    machine = Breaker()
    assert not machine.note_failure()
    machine.note_begun()
    assert [machine.note_failure() for _ in range(breaker.LIMIT)] == [False, False, True]
    assert not machine.is_closed
    machine.note_begun()
    assert machine.is_closed


def test_each_further_failure_lengthens_the_pause_up_to_a_ceiling() -> None:
    machine = Breaker()
    pauses = []
    for _ in range(50):
        machine.note_failure()
        pauses.append(machine.pause_s)
    assert pauses[2:5] == [60.0, 120.0, 240.0]
    assert pauses[-1] == breaker.LONGEST_PAUSE_S
