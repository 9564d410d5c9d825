"""A worker that is suspended, revoked, or leaves."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held
from airflow_remote_protocol.conformance.central import REVOKED_S, CentralUnderTest
from airflow_remote_protocol.conformance.insist import done, eventually, in_state, refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Pong
from airflow_remote_protocol.states import JobState


def check_a_suspended_worker_is_out_until_that_is_lifted_and_keeps_its_jobs(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.suspend_worker(caller.name)
    refused(parked.ends_within(REVOKED_S, "its worker was suspended"), ProblemCode.SUSPENDED)
    for response in (
        *caller.call_all_without_a_job(),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        refused(response, ProblemCode.SUSPENDED)
    in_state(central, offer.job_id, JobState.RUNNING)
    central.unsuspend_worker(caller.name)
    eventually(lambda: caller.call("GET", "ping").status == 200)
    succeeded(caller.call("GET", "ping"), Pong)
    caller.open_session(jobs=[held(offer)])
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_revoked_worker_is_out_at_once(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.revoke_worker(caller.name)
    out = (ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)
    refused(parked.ends_within(REVOKED_S, "its worker was revoked"), *out)
    for response in (
        *caller.call_all_without_a_job(),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        refused(response, *out)
    assert central.log_bytes(offer.job_id) == b"", "a revoked worker writes nothing any more"


def check_a_worker_can_only_leave_with_empty_hands(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    refused(caller.call("POST", "leave"), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.RUNNING)
    succeeded(caller.call("GET", "ping"), Pong)
    done(caller.report(offer))
    done(caller.call("POST", "leave"))
    for response in caller.call_all_without_a_job():
        refused(response, ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)
