"""A poll waits, and returns the offers for its worker."""

from __future__ import annotations

import time

from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, unique
from airflow_remote_protocol.conformance.central import PARKED_S, PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import describe, expect_message, expect_no_content, expect_state
from airflow_remote_protocol.messages import IntentMode, JobKind, JobPhase, Offer, Session, TaskWorkload
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import PROBLEM_HEADER

CALLBACK = {"path": "alerts.tell", "kwargs": {}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}}
"""The fields of a callback's workload, except its id."""


def check_an_idle_poll_waits_and_then_replies_empty(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    asked_at = time.monotonic()
    reply = caller.poll(free_slots=8, wait_s=0.6)
    waited_s = time.monotonic() - asked_at
    assert not (reply.offers or reply.stops or reply.intent), f"nothing happened, but central replied {reply}"
    assert 0.5 <= waited_s <= 0.6 + PROMPT_S, f"asked to wait 0.6 s, central took {waited_s:.2f} s"


def check_an_offer_reaches_a_parked_poll_at_once(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    parked = ParkedPoll(caller, free_slots=1)
    job_id = central.enqueue(caller.queue)
    reply = parked.replies_within(PROMPT_S, "a job was queued")
    assert [offer.job_id for offer in reply.offers] == [job_id], f"expected an offer of {job_id}, got {reply}"
    expect_state(central, job_id, JobState.OFFERED)


def check_an_offer_contains_all_that_the_worker_needs_and_no_secret(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    job_id = central.enqueue(caller.queue, slots=2)
    offer = caller.await_offer(free_slots=2)
    assert (offer.job_id, offer.queue, offer.slots) == (job_id, caller.queue, 2), f"this is not the job that was queued: {offer}"
    assert offer.epoch == central.job_epoch(job_id) >= 1, "the offer's epoch is the job's, and starts at 1"
    assert offer.deadline_s > 0, "an offer has a deadline"
    assert offer.stop_after_s > 0, "an offer states how long the job may run without contact"
    workload = decode(TaskWorkload, bytes(offer.workload))
    assert workload.ti.get("id"), "the workload names its task instance"
    assert b'"token"' not in bytes(offer.workload), "an Airflow token must not leave central"


def check_a_worker_never_gets_more_than_its_free_slots(central: CentralUnderTest) -> None:
    caller = Caller.connect(central, slots=8)
    for _ in range(3):
        central.enqueue(caller.queue, slots=2)
    first = caller.poll(free_slots=3, wait_s=PROMPT_S)
    assert [offer.slots for offer in first.offers] == [2], f"one job of two slots fits into three free ones, got {first.offers}"
    again = caller.poll(free_slots=1, jobs=[held(first.offers[0], JobPhase.PREPARING)])
    assert not again.offers, "a job of two slots does not fit into one free one"
    none = caller.poll(free_slots=0, jobs=[held(first.offers[0], JobPhase.PREPARING)])
    assert not none.offers, "no free slot, no offer"


def check_a_worker_never_gets_more_than_its_sessions_slots(central: CentralUnderTest) -> None:
    caller = Caller.connect(central, slots=1)
    caller.start_job()
    central.enqueue(caller.queue)
    assert not caller.poll(free_slots=5).offers, "the session has one slot and it is taken, whatever the poll says"


def check_a_worker_never_gets_more_than_its_intents_slots(central: CentralUnderTest) -> None:
    caller = Caller.connect(central, slots=8)
    central.set_intent(caller.name, IntentMode.SERVE, slots=1)
    caller.start_job()
    central.enqueue(caller.queue)
    reply = caller.poll(free_slots=5, revision=caller.await_intent(IntentMode.SERVE, slots=1))
    assert not reply.offers, "the intent allows one slot and it is taken"


def check_a_worker_only_gets_jobs_of_its_queues(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    foreign = central.enqueue(unique("queue"), priority=100)
    own = central.enqueue(caller.queue)
    offers = caller.poll(free_slots=5, wait_s=PROMPT_S).offers
    assert [offer.job_id for offer in offers] == [own], f"only {own} is on this worker's queue, got {offers}"
    expect_state(central, foreign, JobState.QUEUED)


def check_a_kind_of_job_goes_only_to_whom_can_run_it(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.session = expect_message(caller.ask_session(capabilities=["task"]), Session)
    job_id = central.enqueue(caller.queue, kind=JobKind.CALLBACK, priority=9, workload=CALLBACK)
    task = central.enqueue(caller.queue)
    offers = caller.poll(free_slots=5, wait_s=PROMPT_S).offers
    assert [offer.job_id for offer in offers] == [task], f"this worker runs tasks only, got {offers}"
    expect_state(central, job_id, JobState.QUEUED)
    other = Caller.connect(central, [caller.queue])
    offer = other.await_offer()
    assert (offer.job_id, offer.kind) == (job_id, JobKind.CALLBACK), f"expected the callback, got {offer}"
    expect_no_content(other.accept(offer))
    expect_state(central, job_id, JobState.RUNNING)
    refusal = other.execution(offer, "PATCH", f"task-instances/{task}/run", {})
    assert PROBLEM_HEADER in refusal.headers, f"a callback has no task to run, got {describe(refusal)}"
    expect_no_content(other.report(offer))
    expect_state(central, job_id, JobState.SUCCEEDED)


def check_jobs_are_offered_by_priority_and_then_by_age(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    jobs = {}
    for label, priority in (("old", 1), ("young", 1), ("urgent", 9), ("last", -3)):
        jobs[central.enqueue(caller.queue, priority=priority)] = label
        time.sleep(0.01)  # ages that any database's clock can tell apart
    order: list[Offer] = []
    for _ in jobs:
        order.append(caller.await_offer(free_slots=1, jobs=[held(offer, JobPhase.PREPARING) for offer in order]))
    assert [jobs[offer.job_id] for offer in order] == ["urgent", "old", "young", "last"], (
        f"the highest priority first, then the oldest; got {[jobs[offer.job_id] for offer in order]}"
    )


def check_a_job_too_big_for_a_worker_does_not_block_the_others(central: CentralUnderTest) -> None:
    caller = Caller.connect(central, slots=2)
    big = central.enqueue(caller.queue, slots=5, priority=100)
    small = central.enqueue(caller.queue)
    assert caller.await_offer(free_slots=2).job_id == small, "the small job must pass the big one"
    expect_state(central, big, JobState.QUEUED)


def check_no_job_is_offered_twice(central: CentralUnderTest) -> None:
    queue = unique("queue")
    callers = [Caller.connect(central, [queue]) for _ in range(2)]
    parked = [ParkedPoll(caller, free_slots=8) for caller in callers]
    jobs = {central.enqueue(queue) for _ in range(6)}
    holding = [poll.replies_within(PARKED_S + PROMPT_S, "its wait is over").offers for poll in parked]
    deadline = time.monotonic() + 2 * PROMPT_S
    while sum(len(offers) for offers in holding) < len(jobs) and time.monotonic() < deadline:
        for caller, offers in zip(callers, holding, strict=True):
            listed = [held(offer, JobPhase.PREPARING) for offer in offers]
            offers += caller.poll(free_slots=8 - len(offers), jobs=listed).offers
    offered = [offer.job_id for offers in holding for offer in offers]
    assert sorted(offered) == sorted(jobs), f"each of {len(jobs)} jobs goes to exactly one worker, offered were {offered}"


def check_a_newer_poll_ends_the_older_one(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    older = ParkedPoll(caller, free_slots=1)
    newer = ParkedPoll(caller, free_slots=1)
    reply = older.replies_within(PROMPT_S, "the same session polled again")
    assert not (reply.offers or reply.stops or reply.intent), f"the older poll's reply must be empty, it says {reply}"
    job_id = central.enqueue(caller.queue)
    reply = newer.replies_within(PROMPT_S, "a job was queued")
    assert [offer.job_id for offer in reply.offers] == [job_id], "the newer poll gets the work"
