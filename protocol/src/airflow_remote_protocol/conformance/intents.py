"""A worker is told what people want of it."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.messages import IntentMode


def check_an_intent_reaches_a_parked_poll_with_a_higher_revision(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    assert caller.session is not None
    known = caller.session.intent
    assert known.mode is IntentMode.SERVE, f"a new worker serves, this one is told to {known.mode.value}"
    parked = ParkedPoll(caller)
    central.set_intent(caller.name, IntentMode.DRAIN)
    intent = parked.replies_within(PROMPT_S, "people changed the intent").intent
    assert intent is not None, "the poll ended without the intent"
    assert (intent.mode, intent.revision > known.revision) == (IntentMode.DRAIN, True), f"a newer intent to drain, got {intent}"


def check_an_intent_is_told_until_the_worker_knows_it(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.set_intent(caller.name, IntentMode.PAUSE)
    told = [caller.poll(wait_s=PROMPT_S).intent for _ in range(2)]
    assert told[0] is not None and told[0] == told[1], f"a poll with an older revision is told again, got {told}"
    assert caller.poll(revision=told[0].revision).intent is None, "a poll that knows the intent is not told again"
    assert caller.open_session().intent == told[0], "a new session starts with the same intent"


def check_a_wish_to_start_anew_is_told_until_another_start_opens_a_session(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    boot_id = unique("boot")
    caller.open_session(boot_id=boot_id)
    parked = ParkedPoll(caller)
    central.ask_to_restart(caller.name)
    intent = parked.replies_within(PROMPT_S, "it is to start anew").intent
    assert intent is not None and intent.restart, f"the reply should ask for a restart, it says {intent}"
    assert caller.open_session(boot_id=boot_id).intent.restart, "the same start is told again"
    assert not caller.open_session().intent.restart, "the wish has come true"


def check_only_a_serving_worker_gets_offers(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(unique("queue"))  # its own queue gets a job only once it is paused
    for mode in (IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE):
        central.set_intent(caller.name, mode)
        revision = caller.await_intent(mode)
        if mode is IntentMode.PAUSE:
            job_id = central.enqueue(caller.queue)
        assert not caller.poll(free_slots=5, revision=revision).offers, f"a worker told to {mode.value} gets no offers"
    central.set_intent(caller.name, IntentMode.SERVE)
    revision = caller.await_intent(IntentMode.SERVE)
    reply = caller.poll(free_slots=5, revision=revision, wait_s=PROMPT_S)
    assert [offer.job_id for offer in reply.offers] == [job_id], "serving again, it gets what was queued meanwhile"
