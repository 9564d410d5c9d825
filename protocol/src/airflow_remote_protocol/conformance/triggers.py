"""The trigger of a deferred task is offered, runs, and resumes its task once. A worker that can't host it hands it back."""

from __future__ import annotations

import gzip

import msgspec

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.conformance.caller import EVERYTHING, Caller, held
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal, expect_state, wait_until
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    MAX_CHUNKS,
    ChunkResult,
    ChunkResults,
    EndState,
    EventKind,
    JobKind,
    JobPhase,
    LogChunk,
    LogChunks,
    Offer,
    Outcome,
    Poll,
    PollReply,
    StopReason,
    TriggerEvent,
    TriggerWorkload,
)
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability

FIRED = TriggerEvent(kind=EventKind.FIRED, payload=msgspec.Raw(b'{"at":1}'))
MOST_TRIGGERS = 50
"""How many triggers one caller in these checks hosts."""


def check_a_trigger_is_offered_with_its_workload_and_takes_no_slot(central: CentralUnderTest) -> None:
    caller = _host(central)
    job_id = central.defer(caller.queue)
    offer = _await_offer(caller)
    assert (offer.job_id, offer.kind) == (job_id, JobKind.TRIGGER), f"expected the trigger {job_id}, got {offer}"
    workload = decode(TriggerWorkload, bytes(offer.workload))
    assert workload.classpath, "the workload must name the trigger's class"
    assert isinstance(msgspec.json.decode(workload.kwargs), dict), "the arguments are a JSON object"
    assert workload.ti["id"], "the workload must hold the task instance"
    task = caller.take_job()
    assert task.kind is JobKind.TASK, "a trigger must not use up a slot"


def check_a_worker_without_the_capability_gets_no_trigger(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    without = [capability for capability in EVERYTHING if capability != Capability.TRIGGER.value]
    caller.open_session(capabilities=without, triggers=MOST_TRIGGERS)
    job_id = central.defer(caller.queue)
    assert not _poll(caller).offers, "a worker that does not name the capability can't host triggers"
    expect_state(central, job_id, JobState.QUEUED)


def check_no_more_triggers_are_offered_than_the_worker_has_room_for(central: CentralUnderTest) -> None:
    caller = _host(central)
    for _ in range(3):
        central.defer(caller.queue)
    assert not _poll(caller, free_triggers=0).offers, "the worker has no room for triggers"
    offers = [_await_offer(caller, free_triggers=1)]
    reply = _poll(caller, free_triggers=1, offers=offers)
    assert len(reply.offers) <= 1, f"the worker has room for one more, got {reply.offers}"


def check_no_more_triggers_are_offered_than_the_session_allows(central: CentralUnderTest) -> None:
    caller = _host(central, triggers=1)
    for _ in range(2):
        central.defer(caller.queue)
    offer = _start(caller)
    assert not _poll(caller, offers=[offer]).offers, "the session allows one trigger, which is running"
    expect_no_content(_event(caller, offer))
    assert _await_offer(caller), "there is room again"


def check_an_event_resumes_the_task_once_and_ends_the_job(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    for _ in range(2):
        expect_no_content(_event(caller, offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)
    assert central.task_state(offer.job_id) == "scheduled", "the task must go on"
    assert not _poll(caller).offers, "a trigger that has fired must not be offered again"


def check_a_failed_trigger_lets_its_task_go_on(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    expect_no_content(_event(caller, offer, TriggerEvent(kind=EventKind.FAILED, traceback=["Traceback", "ValueError: no"])))
    assert central.task_state(offer.job_id) == "scheduled", "Airflow lets the task go on, which then raises the failure"
    assert central.job_state(offer.job_id) in (JobState.SUCCEEDED.value, JobState.FAILED.value), "the job must be over"


def check_an_event_may_end_the_task(central: CentralUnderTest) -> None:
    caller = _host(central)
    for state in EndState:
        offer = _start(caller, central.defer(caller.queue))
        expect_no_content(_event(caller, offer, TriggerEvent(kind=EventKind.ENDED, state=state)))
        assert central.task_state(offer.job_id) == state.value, f"the task must be {state.value}"


def check_an_event_under_another_epoch_is_superseded(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    late = msgspec.structs.replace(offer, epoch=offer.epoch + 1)
    expect_refusal(_event(caller, late), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_an_event_of_a_task_that_a_user_ended_is_superseded(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    central.end_task(offer.job_id)
    stops = _poll(caller, wait_s=PROMPT_S, offers=[offer], free_triggers=0).stops
    assert [stop.job_id for stop in stops] == [offer.job_id], f"a user ended the task, stops: {stops}"
    assert stops[0].reason in (StopReason.ENDED, StopReason.CLEARED, StopReason.GONE), "a user acted: `on_kill` must run"
    expect_refusal(_event(caller, offer), ProblemCode.SUPERSEDED)
    wait_until(lambda: central.job_state(offer.job_id) == JobState.REVOKED.value)


def check_a_running_trigger_can_be_handed_back_and_is_offered_again(central: CentralUnderTest) -> None:
    caller = _host(central)
    first = _start(caller, central.defer(caller.queue))
    expect_no_content(caller.decline(first))
    central.skip_delay(first.job_id)
    second = _await_offer(caller)
    assert second.job_id == first.job_id, "the trigger must be offered again"
    assert second.epoch > first.epoch, "a new offer has a higher epoch"
    expect_refusal(_event(caller, first), ProblemCode.SUPERSEDED)


def check_a_running_trigger_that_a_new_session_does_not_list_is_queued_again(central: CentralUnderTest) -> None:
    caller = _host(central)
    first = _start(caller, central.defer(caller.queue))
    caller.open_session(triggers=MOST_TRIGGERS)
    central.pass_grace(first.job_id)
    second = _await_offer(caller)
    assert (second.job_id, second.epoch > first.epoch) == (first.job_id, True), f"the trigger must start again, got {second}"


def check_a_listed_trigger_keeps_its_lease_over_a_new_session(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    caller.open_session(triggers=MOST_TRIGGERS, jobs=[held(offer)])
    central.pass_grace(offer.job_id)
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(_event(caller, offer))


def check_a_trigger_that_cannot_be_prepared_ends(central: CentralUnderTest) -> None:
    caller = _host(central)
    central.defer(caller.queue)
    offer = _await_offer(caller)
    expect_no_content(caller.report(offer, Outcome.UNPREPARED, None))
    expect_state(central, offer.job_id, JobState.FAILED)


def check_only_a_trigger_has_events(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = caller.start_job()
    expect_refusal(_event(caller, offer), ProblemCode.INVALID)
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_logs_of_many_triggers_arrive_in_one_request(central: CentralUnderTest) -> None:
    caller = _host(central)
    offers = [_start(caller, central.defer(caller.queue)) for _ in range(3)]
    for packed in (False, True):
        size = len(central.log_bytes(offers[0].job_id))
        chunks = [_chunk(offer, size, f"{offer.job_id}\n") for offer in offers]
        results = _ship(caller, chunks, gzipped=packed)
        assert [(result.job_id, result.epoch) for result in results] == [(offer.job_id, offer.epoch) for offer in offers]
        assert all(result.size == size + len(offers[0].job_id) + 1 and not result.refused for result in results), results
    for offer in offers:
        assert central.log_bytes(offer.job_id) == 2 * f"{offer.job_id}\n".encode(), "each log must hold its own lines, once"


def check_a_chunk_at_a_wrong_offset_is_ignored_and_does_not_affect_others(central: CentralUnderTest) -> None:
    caller = _host(central)
    first, second = (_start(caller, central.defer(caller.queue)) for _ in range(2))
    _ship(caller, [_chunk(first, 0, "one\n")])
    stranger = LogChunk(job_id="no-such-job", epoch=1, offset=0, text="x\n")
    old = msgspec.structs.replace(_chunk(second, 0, "old\n"), epoch=second.epoch + 1)
    results = _ship(caller, [_chunk(first, 0, "one\n"), _chunk(first, 9, "gap\n"), stranger, old, _chunk(second, 0, "two\n")])
    assert [bool(result.refused) for result in results] == [False, False, True, True, False], results
    assert [results[n].size for n in (0, 1, 4)] == [4, 4, 4], "each result states where to continue"
    assert central.log_bytes(first.job_id) == b"one\n", "a repeat and a gap change nothing"
    assert central.log_bytes(second.job_id) == b"two\n"


def check_the_log_of_a_trigger_may_grow_after_its_event(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    expect_no_content(_event(caller, offer))
    (result,) = _ship(caller, [_chunk(offer, 0, "trigger completed\n")])
    assert (result.size, result.refused) == (18, ""), result


def check_offsets_count_bytes_not_characters(central: CentralUnderTest) -> None:
    caller = _host(central)
    offer = _start(caller, central.defer(caller.queue))
    (result,) = _ship(caller, [_chunk(offer, 0, "\N{SNOWMAN}\n")])
    assert result.size == 4, f"a snowman has three bytes, got {result.size}"


def check_too_many_chunks_are_invalid(central: CentralUnderTest) -> None:
    caller = _host(central)
    chunk = LogChunk(job_id="job", epoch=1, offset=0, text="x\n")
    expect_refusal(caller.call("POST", "logs", LogChunks(chunks=[chunk] * (MAX_CHUNKS + 1))), ProblemCode.INVALID)


def _host(central: CentralUnderTest, *, triggers: int = MOST_TRIGGERS) -> Caller:
    caller = Caller.enrol(central)
    caller.open_session(triggers=triggers)
    return caller


def _poll(
    caller: Caller, *, free_triggers: int = MOST_TRIGGERS, wait_s: float = 0.4, offers: list[Offer] | None = None
) -> PollReply:
    jobs = [held(offer, JobPhase.RUNNING) for offer in offers or ()]
    revision = caller.session.intent.revision if caller.session else 0
    asked = Poll(free_slots=0, intent_revision=revision, wait_s=wait_s, jobs=jobs, free_triggers=free_triggers)
    return expect_message(caller.call("POST", "poll", asked), PollReply)


def _await_offer(caller: Caller, *, free_triggers: int = MOST_TRIGGERS) -> Offer:
    offers = _poll(caller, free_triggers=free_triggers, wait_s=PROMPT_S).offers
    assert offers, f"no trigger was offered within {PROMPT_S} s, although one is queued"
    return offers[0]


def _start(caller: Caller, job_id: str = "") -> Offer:
    """Take a trigger and accept it."""
    offer = _await_offer(caller)
    assert not job_id or offer.job_id == job_id, f"expected an offer of {job_id}, got {offer}"
    expect_no_content(caller.accept(offer))
    return offer


def _event(caller: Caller, offer: Offer, event: TriggerEvent = FIRED) -> Response:
    return caller.call("POST", f"jobs/{offer.job_id}/event", event, epoch=offer.epoch)


def _chunk(offer: Offer, offset: int, text: str) -> LogChunk:
    return LogChunk(job_id=offer.job_id, epoch=offer.epoch, offset=offset, text=text)


def _ship(caller: Caller, chunks: list[LogChunk], *, gzipped: bool = False) -> list[ChunkResult]:
    body = encode(LogChunks(chunks=chunks))
    headers = {"content-type": "application/json"} | ({"content-encoding": "gzip"} if gzipped else {})
    response = caller.call("POST", "logs", body=gzip.compress(body) if gzipped else body, headers=headers)
    return expect_message(response, ChunkResults).results
