"""What was said before, or is said too late, changes nothing."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, held
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.insist import done, in_state, refused
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Outcome
from airflow_remote_protocol.states import JobState


def check_a_call_under_a_lease_that_is_over_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    old = caller.take_job()
    done(caller.decline(old))
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
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, old.job_id, JobState.OFFERED)
    assert central.job_epoch(old.job_id) == new.epoch, "the newer lease stands"
    assert central.log_bytes(old.job_id) == b"", "an older lease writes no log any more"
    done(caller.accept(new))


def check_a_session_asked_for_again_takes_nothing_away(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    first = caller.open_session(jobs=[held(offer)])
    again = caller.open_session(jobs=[held(offer)])  # the first one's reply may have been lost
    assert not first.stops and not again.stops, f"the job is this worker's, stops: {first.stops} {again.stops}"
    in_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "a new session is no new lease"
    done(caller.report(offer))


def check_a_declined_offer_declined_again_is_not_delayed_twice(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    done(caller.decline(offer))
    refused(caller.decline(offer), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.QUEUED)
    central.skip_delay(offer.job_id)
    assert caller.await_offer().job_id == offer.job_id


def check_an_end_stays_what_it_was_reported_to_be(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer, Outcome.SUCCEEDED, 0))
    done(caller.report(offer, Outcome.FAILED, 1))  # the same job and epoch again: acknowledged, and without effect
    in_state(central, offer.job_id, JobState.SUCCEEDED)
    assert not caller.poll(free_slots=8).offers, "what has ended is not offered"
