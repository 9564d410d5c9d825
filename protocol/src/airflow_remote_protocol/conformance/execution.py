"""The gateway: the Execution API behind a lease, and what central itself decides there."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, own_path, ti_id
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.insist import done, eventually, in_state, refused, shown, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import LogAppended
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import PROBLEM_HEADER


def check_the_tasks_run_call_accepts_the_offer(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    for _ in range(2):  # a lost reply: the same call again gets the same answer
        response = caller.run_task(offer)
        assert response.status == 200, f"expected 200 with the run context, got {shown(response)}"
        assert "dag_run" in json.loads(response.body), f"this is no run context: {response.body[:80]!r}"
        in_state(central, offer.job_id, JobState.RUNNING)
    done(caller.accept(offer))


def check_an_error_of_the_execution_api_is_passed_on_as_it_is(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    response = caller.run_task(offer, pid=4712)
    assert response.status == 409, f"the Execution API refuses to run a task twice, got {shown(response)}"
    assert PROBLEM_HEADER not in response.headers, "the Execution API's own 409 must not look like one of central's"


def check_an_answer_keeps_the_headers_that_the_task_reads(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    path = f"xcoms/{own_path(offer)}/k"
    assert caller.execution(offer, "POST", path, [1, 2]).status == 201, "a task may write its own XCom"
    response = caller.execution(offer, "HEAD", path)
    assert response.status == 200, f"the number of values is asked with HEAD, got {shown(response)}"
    counted = response.headers.get("content-range", "")
    assert counted.startswith("map_indexes "), f"the task reads the number from `content-range`, which is {counted!r}"
    assert "refreshed-api-token" not in response.headers, "a token of Airflow's never leaves central"


def check_a_key_is_stored_as_the_task_spells_it(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    keys = ("a/b", "/a", "a/", "//", "a b", "100%", "%2F", "é/💥", "item/3", "x?y=1#z")
    for number, key in enumerate(keys):
        response = caller.execution(offer, "POST", f"xcoms/{own_path(offer)}/{quote(key)}", number)
        assert response.status == 201, f"the key {key!r} is one like any other, got {shown(response)}"
    for number, key in enumerate(keys):
        response = caller.execution(offer, "GET", f"xcoms/{own_path(offer)}/{quote(key, safe='')}")
        assert response.status == 200, f"the key {key!r} was written, got {shown(response)}"
        found = json.loads(response.body)
        assert (found["key"], found["value"]) == (key, number), f"{key!r} was read as {found}"


def check_a_large_value_passes_beside_a_parked_poll(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    assert caller.session is not None
    value = "x" * (min(caller.session.body_bytes, LARGE_BYTES) - 2)
    ParkedPoll(caller, jobs=[held(offer)])
    path = f"xcoms/{own_path(offer)}/k"
    response = caller.execution(offer, "POST", path, value)
    assert response.status == 201, f"a worker always has a poll open, which must keep no value out, got {shown(response)}"
    response = caller.execution(offer, "GET", path)
    assert response.status == 200, f"what may be written may be read, got {shown(response)}"
    assert json.loads(response.body)["value"] == value


LARGE_BYTES = 9 * 1024 * 1024
"""More than central keeps for the small calls of one worker."""


def check_what_nothing_grants_is_denied_as_the_execution_api_would(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    response = caller.execution(offer, "GET", f"variables/{central.ungranted_variable()}")
    assert response.status == 403, f"nothing grants this variable, got {shown(response)}"
    assert PROBLEM_HEADER not in response.headers, "the task is told, not the worker: this is no problem of central's"
    detail = json.loads(response.body)["detail"]
    assert detail["reason"] == "not_granted", f"the worker knows a denial by its reason, got {shown(response)}"
    assert detail["message"], "people read in the task's log what was denied"
    in_state(central, offer.job_id, JobState.RUNNING)


def check_the_tasks_own_end_is_no_stop(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    response = caller.end_task(offer)
    assert response.status in (200, 204), f"the task may end itself, got {shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops  # longer than the second between two looks for ended tasks
    assert not stops, "what the task said of itself through the gateway is not a person's word"
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_start_whose_reply_was_lost_may_be_said_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    for _ in range(3):
        response = caller.run_task(offer)
        assert response.status == 200, f"the same process may say again that it runs, got {shown(response)}"
    in_state(central, offer.job_id, JobState.RUNNING)


def check_an_end_whose_reply_was_lost_may_be_said_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    for _ in range(3):
        response = caller.end_task(offer)
        assert response.status in (200, 204), f"the task may say its end again, got {shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "a repeated end is as much the task's own word as the first"
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_task_that_has_ended_makes_no_more_calls(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    assert caller.end_task(offer).status in (200, 204), "the task may end itself"
    for method, path in (
        ("GET", f"variables/{central.ungranted_variable()}"),
        ("GET", "connections/any"),
        ("POST", "xcoms/d/r/t/k"),
        ("PATCH", f"task-instances/{ti_id(offer)}/run"),
    ):
        refused(caller.execution(offer, method, path, None if method == "GET" else 1), ProblemCode.INVALID)
    succeeded(caller.log(offer, 0, b"the rest of its log\n"), LogAppended)
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_task_ends_in_one_state(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the task may go away"
    refused(caller.end_task(offer, state="success"), ProblemCode.INVALID)
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the same end may be said again"


def check_an_end_said_again_to_a_task_that_has_moved_on_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the task may go away"
    central.move_task_on(offer.job_id)
    response = caller.end_task(offer, state="deferred")
    assert response.status in (200, 204), f"what was said and done is not refused when it is said again, got {shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "the first end was the task's own word; its repeat doesn't take that back"
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_an_end_that_was_refused_is_not_taken_for_the_tasks_word(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.take_job()
    response = caller.end_task(offer)  # it never ran
    assert response.status >= 400, f"a task that does not run can't end, got {shown(response)}"
    response = caller.end_task(offer)
    assert response.status >= 400, f"said again it is still refused, got {shown(response)}"


def check_a_task_that_was_taken_back_writes_nothing_more(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_task()
    central.end_task(offer.job_id)
    stops = caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert stops, "a person ended the task: its worker must hear of it"

    def write() -> Response:
        return caller.execution(offer, "POST", "xcoms/d/r/t/k", 1)

    eventually(lambda: PROBLEM_HEADER in write().headers)  # what the database said a moment ago may still count
    refused(write(), ProblemCode.INVALID, ProblemCode.SUPERSEDED)


def check_the_gateway_is_closed_once_the_lease_is_over(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer))
    refused(caller.execution(offer, "GET", "variables/any"), ProblemCode.SUPERSEDED)
    refused(caller.run_task(offer), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.SUCCEEDED)
