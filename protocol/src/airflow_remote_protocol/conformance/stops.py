"""A worker receives stops for jobs that a user ended, that were lost, and that are not its own."""

from __future__ import annotations

import uuid

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal, expect_state, wait_until
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import HeldJob, JobPhase, LogAppended, Outcome, Stop, StopReason
from airflow_remote_protocol.states import JobState


def check_a_stop_reaches_a_parked_poll_when_a_user_ends_the_task(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    ended, other = caller.start_job(), caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(ended), held(other)])
    central.end_task(ended.job_id)
    stops = parked.replies_within(PROMPT_S, "a user ended the task").stops
    assert [(stop.job_id, stop.epoch) for stop in stops] == [(ended.job_id, ended.epoch)], f"one job was ended, stops: {stops}"
    assert stops[0].reason is not StopReason.SUPERSEDED, "the reason must be that a user ended it, not that it was replaced"
    expect_state(central, other.job_id, JobState.RUNNING)


def check_a_stop_is_repeated_until_the_worker_lists_the_job_as_stopping(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    for phase in (JobPhase.RUNNING, JobPhase.PREPARING, JobPhase.RUNNING):
        stops = caller.poll(jobs=[held(offer, phase)], wait_s=PROMPT_S).stops
        assert stops, f"the job is listed as {phase.value}, so the worker has not received the stop yet"
    for phase in (JobPhase.STOPPING, JobPhase.ENDED):
        stops = caller.poll(jobs=[held(offer, phase)]).stops
        assert not stops, f"the job is listed as {phase.value}; it must not be stopped again"


def check_a_stopped_job_ends_with_its_report(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    assert caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops, "the stop must arrive"
    expect_message(caller.log(offer, 0, b"stopped\n"), LogAppended)
    response = caller.report(offer, Outcome.STOPPED, -15)
    if response.status != 204:  # the user's action may have ended it already; the worker then drops the report
        expect_refusal(response, ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.REVOKED, JobState.FAILED)


def check_an_offer_whose_task_a_user_ended_cannot_be_accepted(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    central.end_task(offer.job_id)
    stops = caller.poll(jobs=[held(offer, JobPhase.PREPARING)], wait_s=PROMPT_S).stops
    assert [stop.job_id for stop in stops] == [offer.job_id], "the preparing worker must receive the stop"
    expect_refusal(caller.accept(offer), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.REVOKED)


def check_a_task_that_a_user_ended_before_its_offer_is_never_offered(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    job_id = central.enqueue(caller.queue)
    central.end_task(job_id)
    wait_until(lambda: central.job_state(job_id) == JobState.REVOKED.value)
    expect_state(central, job_id, JobState.REVOKED)
    assert not caller.poll(free_slots=1).offers, "an ended task must not start"


def check_a_lost_job_is_stopped_its_log_taken_and_its_report_refused(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_message(caller.log(offer, 0, b"before\n"), LogAppended)
    central.lose_job(offer.job_id)
    stops = caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert [(stop.job_id, stop.reason) for stop in stops] == [(offer.job_id, StopReason.LOST)], (
        f"one job was lost, stops: {stops}"
    )
    for phase in (JobPhase.STOPPING, JobPhase.ENDED):
        assert not caller.poll(jobs=[held(offer, phase)]).stops, "the worker is stopping it already"
    expect_refusal(caller.execution(offer, "GET", "variables/any"), ProblemCode.SUPERSEDED)
    assert expect_message(caller.log(offer, 7, b"after\n"), LogAppended).size == 13, "the old try's log is still accepted"
    for _ in range(2):
        expect_refusal(caller.report(offer), ProblemCode.SUPERSEDED)
    assert central.log_bytes(offer.job_id) == b"before\nafter\n", "the old try's log must be complete"
    expect_state(central, offer.job_id, JobState.LOST)


def check_a_listed_job_of_another_worker_is_stopped(central: CentralUnderTest) -> None:
    theirs = Caller.connect(central).start_job()
    caller = Caller.connect(central)
    unknown = HeldJob(job_id=str(uuid.uuid4()), epoch=1, phase=JobPhase.RUNNING)
    stops: list[Stop] = ParkedPoll(caller, jobs=[held(theirs), unknown]).replies_within(PROMPT_S, "it lists foreign jobs").stops
    assert {stop.job_id for stop in stops} == {theirs.job_id, unknown.job_id}, f"both are not this worker's, stops: {stops}"
    assert all(stop.reason is StopReason.SUPERSEDED for stop in stops), f"the reason is superseded: {stops}"
    expect_state(central, theirs.job_id, JobState.RUNNING)
