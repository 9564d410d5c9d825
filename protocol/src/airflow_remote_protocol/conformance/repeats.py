"""Repeated and late calls change nothing."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, held
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_no_content, expect_refusal, expect_state
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Outcome
from airflow_remote_protocol.states import JobState


def check_a_call_under_a_lease_that_is_over_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    old = caller.take_job()
    expect_no_content(caller.decline(old))
    central.skip_delay(old.job_id)
    new = caller.await_offer()
    assert new.epoch > old.epoch, f"an epoch rises with each offer: {old.epoch}, then {new.epoch}"
    for response in (
        caller.accept(old),
        caller.decline(old),
        caller.report(old, Outcome.FAILED, 1),
        caller.log(old, 0, b"late\n"),
        caller.run_task(old),
    ):
        expect_refusal(response, ProblemCode.SUPERSEDED)
    expect_state(central, old.job_id, JobState.OFFERED)
    assert central.job_epoch(old.job_id) == new.epoch, "the newer lease must stay"
    assert central.log_bytes(old.job_id) == b"", "an older lease must not write into the log"
    expect_no_content(caller.accept(new))


def check_a_session_that_is_opened_again_loses_no_job(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    first = caller.open_session(jobs=[held(offer)])
    again = caller.open_session(jobs=[held(offer)])  # the first one's reply may have been lost
    assert not first.stops and not again.stops, f"the job is this worker's, stops: {first.stops} {again.stops}"
    expect_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "a new session is no new lease"
    expect_no_content(caller.report(offer))


def check_a_declined_offer_declined_again_is_not_delayed_twice(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_no_content(caller.decline(offer))
    expect_refusal(caller.decline(offer), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    assert caller.await_offer().job_id == offer.job_id


def check_a_reported_end_is_final(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_no_content(caller.report(offer, Outcome.SUCCEEDED, 0))
    expect_no_content(caller.report(offer, Outcome.FAILED, 1))  # the same job and epoch again: acknowledged, without effect
    expect_state(central, offer.job_id, JobState.SUCCEEDED)
    assert not caller.poll(free_slots=8).offers, "what has ended is not offered"
