"""A lease: an offer is accepted, declined, expired or reported, and only by the worker that received it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from airflow_remote_protocol.conformance.caller import Caller, held, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal, expect_state
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobPhase, LogAppended, Offer, Outcome, StopReason
from airflow_remote_protocol.states import JobState

MAX_REOFFERS = 3
"""docs/protocol.md, "Sessions, polls, leases"."""


def check_accepting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(caller.accept(offer))
    expect_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "accepting does not raise the epoch"


def check_an_older_epoch_is_superseded_and_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    old = caller.take_job()
    central.expire_offer(old.job_id)
    central.skip_delay(old.job_id)
    new = caller.await_offer()
    assert new.epoch > old.epoch, f"every offer raises the epoch: {old.epoch}, then {new.epoch}"
    for response in _make_all_job_calls(caller, old):
        expect_refusal(response, ProblemCode.SUPERSEDED)
    expect_state(central, old.job_id, JobState.OFFERED)
    assert central.log_bytes(old.job_id) == b"", "an older epoch must not write into the log"
    stops = caller.poll(jobs=[held(old, JobPhase.PREPARING), held(new, JobPhase.PREPARING)], wait_s=PROMPT_S).stops
    assert [(stop.epoch, stop.reason) for stop in stops] == [(old.epoch, StopReason.SUPERSEDED)], (
        f"listing the old lease must cause a stop for it and only for it, got {stops}"
    )
    expect_no_content(caller.accept(new))


def check_an_expired_offer_is_void_and_made_again_at_a_higher_epoch(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    central.expire_offer(offer.job_id)
    expect_state(central, offer.job_id, JobState.QUEUED)
    for response in _make_all_job_calls(caller, offer):
        expect_refusal(response, ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (offer.job_id, True), "the same job again, at a higher epoch"


def check_a_job_that_is_never_accepted_fails(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    job_id = central.enqueue(caller.queue)
    for _ in range(1 + MAX_REOFFERS):
        expect_state(central, job_id, JobState.QUEUED)
        central.skip_delay(job_id)
        assert caller.await_offer().job_id == job_id, "it must be offered again"
        central.expire_offer(job_id)
    expect_state(central, job_id, JobState.FAILED)


def check_a_declined_job_is_queued_again(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_no_content(caller.decline(offer))
    expect_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (offer.job_id, True), "the same job again, at a higher epoch"


def check_a_running_job_cannot_be_declined(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_refusal(caller.decline(offer), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_reporting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    for outcome, exit_code, state in (
        (Outcome.SUCCEEDED, 0, JobState.SUCCEEDED),
        (Outcome.FAILED, 1, JobState.FAILED),
        (Outcome.DIED, None, JobState.FAILED),
    ):
        offer = caller.start_job()
        expect_no_content(caller.report(offer, outcome, exit_code))
        expect_state(central, offer.job_id, state)
        expect_no_content(caller.report(offer, outcome, exit_code))
        expect_state(central, offer.job_id, state)
        expect_refusal(caller.accept(offer), ProblemCode.SUPERSEDED)
        expect_state(central, offer.job_id, state)


def check_a_second_report_does_not_change_the_first(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_no_content(caller.report(offer, Outcome.SUCCEEDED))
    expect_no_content(caller.report(offer, Outcome.DIED, None))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_an_offer_that_cannot_be_prepared_is_reported_without_acceptance(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_message(caller.log(offer, 0, b"no such interpreter\n"), LogAppended)
    expect_no_content(caller.report(offer, Outcome.UNPREPARED, None))
    expect_state(central, offer.job_id, JobState.FAILED)


def check_an_offer_that_died_before_its_acceptance_is_made_again(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_no_content(caller.report(offer, Outcome.DIED, None))
    central.expire_offer(offer.job_id)
    expect_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch) == (offer.job_id, offer.epoch + 1)
    expect_refusal(caller.accept(offer), ProblemCode.SUPERSEDED)


def check_a_report_frees_the_slots(central: CentralUnderTest) -> None:
    caller = Caller.connect(central, slots=1)
    first = caller.start_job()
    expect_no_content(caller.report(first))
    second = central.enqueue(caller.queue)
    assert caller.await_offer().job_id == second, "the only slot is free again"


def check_a_worker_cannot_access_the_job_of_another(central: CentralUnderTest) -> None:
    queue = unique("queue")
    owner, thief = Caller.connect(central, [queue]), Caller.connect(central, [queue])
    central.enqueue(queue)
    offered = owner.await_offer()
    _expect_not_found_everywhere(thief, offered)
    expect_state(central, offered.job_id, JobState.OFFERED)
    expect_no_content(owner.accept(offered))
    _expect_not_found_everywhere(thief, offered)
    expect_state(central, offered.job_id, JobState.RUNNING)
    assert central.log_bytes(offered.job_id) == b"", "another worker must not write into the job's log"
    expect_no_content(owner.report(offered))
    _expect_not_found_everywhere(thief, offered)
    expect_state(central, offered.job_id, JobState.SUCCEEDED)


def check_a_queued_job_belongs_to_no_worker(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    job_id = central.enqueue(caller.queue)
    for epoch in (0, 1):
        expect_refusal(caller.call("POST", f"jobs/{job_id}/accept", epoch=epoch), ProblemCode.NOT_FOUND, ProblemCode.SUPERSEDED)
    expect_state(central, job_id, JobState.QUEUED)


def check_an_unknown_job_is_not_found(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    for job_id in (str(uuid.uuid4()), "no-uuid", "%2e%2e%2fetc"):
        expect_refusal(caller.call("POST", f"jobs/{job_id}/accept", epoch=1), ProblemCode.NOT_FOUND)


def _expect_not_found_everywhere(thief: Caller, offer: Offer) -> None:
    for response in _make_all_job_calls(thief, offer):
        expect_refusal(response, ProblemCode.NOT_FOUND)


def _make_all_job_calls(caller: Caller, offer: Offer) -> Iterator[Response]:
    """Make every call about a job, one after the other."""
    yield caller.accept(offer)
    yield caller.decline(offer)
    yield caller.report(offer)
    yield caller.log(offer, 0, b"not this caller's to write")
    yield caller.run_task(offer)
    yield caller.execution(offer, "GET", "variables/any")
