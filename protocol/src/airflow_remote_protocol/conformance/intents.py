"""A worker receives its intent."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.messages import IntentMode


def check_an_intent_reaches_a_parked_poll_with_a_higher_revision(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    assert caller.session is not None
    known = caller.session.intent
    assert known.mode is IntentMode.SERVE, f"a new worker serves, this one has the intent {known.mode.value}"
    parked = ParkedPoll(caller)
    central.set_intent(caller.name, IntentMode.DRAIN)
    intent = parked.replies_within(PROMPT_S, "an administrator changed the intent").intent
    assert intent is not None, "the poll ended without the intent"
    assert (intent.mode, intent.revision > known.revision) == (IntentMode.DRAIN, True), f"a newer intent to drain, got {intent}"


def check_an_intent_is_sent_until_the_worker_knows_it(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    central.set_intent(caller.name, IntentMode.PAUSE)
    first, second = (caller.poll(wait_s=PROMPT_S).intent for _ in range(2))
    assert first is not None and first == second, f"a poll with an older revision gets it again, got {first}, then {second}"
    assert caller.poll(revision=first.revision).intent is None, "a poll with this revision must not get it again"
    assert caller.open_session().intent == first, "a new session starts with the same intent"


def check_a_request_to_restart_is_repeated_until_another_start_opens_a_session(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    boot_id = unique("boot")
    caller.open_session(boot_id=boot_id)
    parked = ParkedPoll(caller)
    central.ask_to_restart(caller.name)
    intent = parked.replies_within(PROMPT_S, "an administrator requested a restart").intent
    assert intent is not None and intent.restart, f"the reply should ask for a restart, it says {intent}"
    assert caller.open_session(boot_id=boot_id).intent.restart, "a session of the same start must repeat it"
    assert not caller.open_session().intent.restart, "the request is fulfilled"


def check_only_a_serving_worker_gets_offers(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    job_id = central.enqueue(unique("queue"))  # on another queue; its own queue gets a job only once the worker is paused
    for mode in (IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE):
        central.set_intent(caller.name, mode)
        revision = caller.await_intent(mode)
        if mode is IntentMode.PAUSE:
            job_id = central.enqueue(caller.queue)
        assert not caller.poll(free_slots=5, revision=revision).offers, f"a worker with the intent {mode.value} gets no offers"
    central.set_intent(caller.name, IntentMode.SERVE)
    revision = caller.await_intent(IntentMode.SERVE)
    reply = caller.poll(free_slots=5, revision=revision, wait_s=PROMPT_S)
    assert [offer.job_id for offer in reply.offers] == [job_id], "serving again, it gets what was queued meanwhile"
