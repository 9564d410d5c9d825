"""Jobs that fail before their own code begins are counted by central, independently of the worker's reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, ti_id
from airflow_remote_protocol.conformance.central import PROMPT_S
from airflow_remote_protocol.conformance.expect import expect_no_content
from airflow_remote_protocol.messages import IntentMode, Outcome

from testkit.central import ServedCentral
from testkit.ledger import make_engine, use_ledger, worker_row


@pytest.fixture
def central(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[ServedCentral]:
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path / "logs"), ServedCentral() as served:
        yield served
    engine.dispose()


def _failures(caller: Caller) -> int:
    assert caller.session is not None
    return worker_row(caller.session.worker_id).early_failures


def _fail(caller: Caller, *, write: bool = False) -> None:
    offer = caller.start_task()
    if write:
        caller.execution(offer, "PUT", f"task-instances/{ti_id(offer)}/rtif", {"bash_command": "exit 1"})
    caller.end_task(offer, state="failed")
    expect_no_content(caller.report(offer, Outcome.FAILED, 1))


def test_jobs_that_fail_without_a_write_are_counted_until_one_writes(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    for expected in (1, 2):
        _fail(caller)
        assert _failures(caller) == expected
    _fail(caller, write=True)
    assert _failures(caller) == 0


def test_unprepared_jobs_are_counted_and_a_success_resets_the_count(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    expect_no_content(caller.report(caller.take_job(), Outcome.UNPREPARED, None))
    assert _failures(caller) == 1
    offer = caller.start_task()
    caller.end_task(offer)
    expect_no_content(caller.report(offer))
    assert _failures(caller) == 0


def test_the_first_write_of_a_job_resets_the_count_before_the_job_ends(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    _fail(caller)
    assert _failures(caller) == 1
    offer = caller.start_task()
    caller.execution(offer, "PUT", f"task-instances/{ti_id(offer)}/rtif", {"bash_command": "exit 0"})
    assert _failures(caller) == 0


def test_a_rescheduled_start_does_not_reset_the_count(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    _fail(caller)
    offer = caller.start_task()
    body = {"state": "up_for_reschedule", "reschedule_date": "2026-11-30T00:00:00Z", "end_date": "2026-11-30T00:00:00Z"}
    caller.execution(offer, "PATCH", f"task-instances/{ti_id(offer)}/state", body)
    expect_no_content(caller.report(offer))
    assert _failures(caller) == 1


def test_three_failures_in_a_row_pause_the_worker_if_another_workers_jobs_succeed(central: ServedCentral) -> None:
    sound = Caller.connect(central)
    offer = sound.start_task()
    sound.end_task(offer)
    expect_no_content(sound.report(offer))
    broken = Caller.connect(central, sound.queues)
    for _ in range(2):
        _fail(broken)
    offer = broken.start_task()
    broken.end_task(offer, state="failed")
    parked = ParkedPoll(broken, jobs=[held(offer)])
    expect_no_content(broken.report(offer, Outcome.FAILED, 1))
    reply = parked.replies_within(PROMPT_S, "its worker is paused")
    assert reply.intent is not None and reply.intent.mode is IntentMode.PAUSE
    assert broken.session is not None
    row = worker_row(broken.session.worker_id)
    assert (row.intent, row.intent_by) == ("pause", "central")
    assert "its last 3 jobs failed before their own code began" in row.alarm
