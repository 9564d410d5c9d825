"""A lease: an offer that is accepted, declined, expired or reported, by whom it was made to and nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from airflow_remote_protocol.conformance.caller import Caller, held, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.insist import done, in_state, refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobPhase, LogAppended, Offer, Outcome, StopReason
from airflow_remote_protocol.states import JobState

MAX_REOFFERS = 3
"""docs/protocol.md, "Sessions, polls, leases"."""


def check_accepting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    in_state(central, offer.job_id, JobState.RUNNING)
    done(caller.accept(offer))
    in_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "accepting does not raise the epoch"


def check_an_older_epoch_is_superseded_and_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    old = caller.take_job()
    central.expire_offer(old.job_id)
    central.skip_delay(old.job_id)
    new = caller.await_offer()
    assert new.epoch > old.epoch, f"every offer raises the epoch: {old.epoch}, then {new.epoch}"
    for response in _all_job_calls(caller, old):
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, old.job_id, JobState.OFFERED)
    assert central.log_bytes(old.job_id) == b"", "an older epoch must not write into the log"
    stops = caller.poll(jobs=[held(old, JobPhase.PREPARING), held(new, JobPhase.PREPARING)], wait_s=PROMPT_S).stops
    assert [(stop.epoch, stop.reason) for stop in stops] == [(old.epoch, StopReason.SUPERSEDED)], (
        f"listing the old lease must bring back a stop for it and only for it, got {stops}"
    )
    done(caller.accept(new))


def check_an_expired_offer_is_dead_and_comes_back_at_a_higher_epoch(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    central.expire_offer(offer.job_id)
    in_state(central, offer.job_id, JobState.QUEUED)
    for response in _all_job_calls(caller, offer):
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (offer.job_id, True), "the same job again, at a higher epoch"


def check_a_job_that_nobody_accepts_fails_in_the_end(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    for _ in range(1 + MAX_REOFFERS):
        in_state(central, job_id, JobState.QUEUED)
        central.skip_delay(job_id)
        assert caller.await_offer().job_id == job_id, "it must be offered again"
        central.expire_offer(job_id)
    in_state(central, job_id, JobState.FAILED)


def check_a_declined_job_is_queued_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    done(caller.decline(offer))
    in_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (offer.job_id, True), "the same job again, at a higher epoch"


def check_a_running_job_cannot_be_declined(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    refused(caller.decline(offer), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.RUNNING)


def check_reporting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for outcome, exit_code, state in (
        (Outcome.SUCCEEDED, 0, JobState.SUCCEEDED),
        (Outcome.FAILED, 1, JobState.FAILED),
        (Outcome.DIED, None, JobState.FAILED),
    ):
        offer = caller.start_job()
        done(caller.report(offer, outcome, exit_code))
        in_state(central, offer.job_id, state)
        done(caller.report(offer, outcome, exit_code))
        in_state(central, offer.job_id, state)
        refused(caller.accept(offer), ProblemCode.SUPERSEDED)
        in_state(central, offer.job_id, state)


def check_a_second_report_does_not_change_the_first(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer, Outcome.SUCCEEDED))
    done(caller.report(offer, Outcome.DIED, None))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_an_offer_that_cannot_be_prepared_is_reported_without_acceptance(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    succeeded(caller.log(offer, 0, b"no such interpreter\n"), LogAppended)
    done(caller.report(offer, Outcome.UNPREPARED, None))
    in_state(central, offer.job_id, JobState.FAILED)


def check_an_offer_that_died_before_its_acceptance_is_made_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    done(caller.report(offer, Outcome.DIED, None))
    central.expire_offer(offer.job_id)
    in_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch) == (offer.job_id, offer.epoch + 1)
    refused(caller.accept(offer), ProblemCode.SUPERSEDED)


def check_a_report_frees_the_slots(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=1)
    first = caller.start_job()
    done(caller.report(first))
    second = central.enqueue(caller.queue)
    assert caller.await_offer().job_id == second, "the only slot is free again"


def check_nobody_else_can_touch_a_workers_job(central: CentralUnderTest) -> None:
    queue = unique("queue")
    owner, thief = Caller.at_work(central, [queue]), Caller.at_work(central, [queue])
    central.enqueue(queue)
    offered = owner.await_offer()
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.OFFERED)
    done(owner.accept(offered))
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.RUNNING)
    assert central.log_bytes(offered.job_id) == b"", "nobody else writes into a job's log"
    done(owner.report(offered))
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.SUCCEEDED)


def check_a_queued_job_is_nobodys(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    for epoch in (0, 1):
        refused(caller.call("POST", f"jobs/{job_id}/accept", epoch=epoch), ProblemCode.NOT_FOUND, ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.QUEUED)


def check_an_unknown_job_is_not_found(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for job_id in (str(uuid.uuid4()), "no-uuid", "%2e%2e%2fetc"):
        refused(caller.call("POST", f"jobs/{job_id}/accept", epoch=1), ProblemCode.NOT_FOUND)


def _is_not_found_everywhere(thief: Caller, offer: Offer) -> None:
    for response in _all_job_calls(thief, offer):
        refused(response, ProblemCode.NOT_FOUND)


def _all_job_calls(caller: Caller, offer: Offer) -> Iterator[Response]:
    """Try everything that can be done to a job, one after the other."""
    yield caller.accept(offer)
    yield caller.decline(offer)
    yield caller.report(offer)
    yield caller.log(offer, 0, b"not this caller's to write")
    yield caller.run_task(offer)
    yield caller.execution(offer, "GET", "variables/any")
