"""A worker with a limit of jobs gets so many, and no offer is lost over it."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, held
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_no_content, expect_state
from airflow_remote_protocol.messages import JobPhase
from airflow_remote_protocol.states import JobState


def check_a_one_job_worker_gets_one_job(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    session = caller.open_session(slots=8, ephemeral=True, max_jobs=1)
    assert session.jobs_left == 1, f"the session states how many jobs the worker gets, not {session.jobs_left}"
    first, second = central.enqueue(caller.queue), central.enqueue(caller.queue)
    reply = caller.poll(free_slots=8, wait_s=PROMPT_S)
    assert [offer.job_id for offer in reply.offers] == [first], f"one of two jobs is offered, got {reply.offers}"
    offer = reply.offers[0]
    assert not caller.poll(free_slots=8).offers, "an offer that the poll does not list counts, too: it may be on its way"
    expect_no_content(caller.accept(offer))
    assert not caller.poll(free_slots=8, jobs=[held(offer)]).offers
    expect_no_content(caller.report(offer))
    assert not caller.poll(free_slots=8).offers, "the worker has had its job"
    expect_state(central, second, JobState.QUEUED)


def check_a_declined_offer_does_not_count(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.open_session(ephemeral=True, max_jobs=1)
    offer = caller.take_job()
    expect_no_content(caller.decline(offer))
    other = central.enqueue(caller.queue)
    again = caller.await_offer()
    assert again.job_id in (offer.job_id, other)


def check_an_ephemeral_worker_can_t_raise_its_limit(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.open_session(ephemeral=True, max_jobs=1)
    offer = caller.start_job()
    expect_no_content(caller.report(offer))
    waiting = central.enqueue(caller.queue)
    for most in (None, 100):
        session = caller.open_session(max_jobs=most)
        assert session.jobs_left == 0, f"it has had its only job, and asked for {most}; central states {session.jobs_left}"
        assert not caller.poll(free_slots=8).offers
    expect_state(central, waiting, JobState.QUEUED)


def check_an_offer_that_never_arrived_does_not_count(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.open_session(ephemeral=True, max_jobs=1)
    offer = caller.take_job()
    session = caller.open_session(jobs=[])  # the reply with the offer was lost
    assert session.jobs_left == 1
    again = caller.await_offer()
    assert (again.job_id, again.epoch) == (offer.job_id, offer.epoch + 1)
    expect_no_content(caller.accept(again))
    session = caller.open_session(jobs=[held(again, JobPhase.RUNNING)])
    assert session.jobs_left == 0
