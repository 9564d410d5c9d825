"""A worker that is suspended, revoked, or leaves."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, enrol, held, unique
from airflow_remote_protocol.conformance.central import REVOKED_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal, expect_state, wait_until
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolled, Pong
from airflow_remote_protocol.states import JobState


def check_a_suspended_worker_is_refused_until_it_is_unsuspended_and_keeps_its_jobs(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.suspend_worker(caller.name)
    expect_refusal(parked.ends_within(REVOKED_S, "its worker was suspended"), ProblemCode.SUSPENDED)
    for response in (
        *caller.make_all_calls_without_a_job(),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        expect_refusal(response, ProblemCode.SUSPENDED)
    expect_state(central, offer.job_id, JobState.RUNNING)
    central.unsuspend_worker(caller.name)
    wait_until(lambda: caller.call("GET", "ping").status == 200)
    expect_message(caller.call("GET", "ping"), Pong)
    caller.open_session(jobs=[held(offer)])
    expect_no_content(caller.report(offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_revoked_worker_is_refused_at_once(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.revoke_worker(caller.name)
    out = (ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)
    expect_refusal(parked.ends_within(REVOKED_S, "its worker was revoked"), *out)
    for response in (
        *caller.make_all_calls_without_a_job(),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        expect_refusal(response, *out)
    assert central.log_bytes(offer.job_id) == b"", "a revoked worker must not write into a log"


def check_a_worker_can_leave_only_without_jobs(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_refusal(caller.call("POST", "leave"), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_message(caller.call("GET", "ping"), Pong)
    expect_no_content(caller.report(offer))
    expect_no_content(caller.call("POST", "leave"))
    for response in caller.make_all_calls_without_a_job():
        expect_refusal(response, ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)


def check_a_worker_that_leaves_returns_its_offers(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_no_content(caller.call("POST", "leave"))
    expect_state(central, offer.job_id, JobState.QUEUED)
    expect_refusal(caller.accept(offer), ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)


def check_a_worker_s_name_is_free_once_it_has_left(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")], uses=3)
    name = unique("runner")
    first = Caller(central, expect_message(enrol(central, token=token, name=name, ephemeral=True), Enrolled, status=201))
    first.open_session(max_jobs=1)
    expect_refusal(enrol(central, token=token, name=name, ephemeral=True), ProblemCode.NAME_TAKEN)
    expect_no_content(first.call("POST", "leave"))
    expect_message(enrol(central, token=token, name=name, ephemeral=True), Enrolled, status=201)
