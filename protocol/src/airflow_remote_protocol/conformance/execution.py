"""The gateway: the Execution API for the holder of a lease, and the cases that central itself decides."""

from __future__ import annotations

import json
from urllib.parse import quote

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, own_path, ti_id
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.expect import (
    describe,
    expect_message,
    expect_no_content,
    expect_refusal,
    expect_state,
    wait_until,
)
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import LogAppended
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import PROBLEM_HEADER


def check_the_tasks_run_call_accepts_the_offer(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    for _ in range(2):  # as after a lost reply: a repeated call gets the same answer
        response = caller.run_task(offer)
        assert response.status == 200, f"expected 200 with the run context, got {describe(response)}"
        assert "dag_run" in json.loads(response.body), f"this is not a run context: {response.body[:80]!r}"
        expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(caller.accept(offer))


def check_an_error_of_the_execution_api_is_passed_on_unchanged(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    response = caller.run_task(offer, pid=4712)
    assert response.status == 409, f"the Execution API refuses to run a task twice, got {describe(response)}"
    assert PROBLEM_HEADER not in response.headers, "the Execution API's own 409 must not look like one of central's"


def check_an_answer_keeps_the_headers_that_the_task_reads(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    path = f"xcoms/{own_path(offer)}/k"
    assert caller.execution(offer, "POST", path, [1, 2]).status == 201, "a task may write its own XCom"
    response = caller.execution(offer, "HEAD", path)
    assert response.status == 200, f"HEAD returns the number of values, got {describe(response)}"
    counted = response.headers.get("content-range", "")
    assert counted.startswith("map_indexes "), f"the task reads the number from `content-range`, which is {counted!r}"
    assert "refreshed-api-token" not in response.headers, "an Airflow token must not leave central"


def check_a_key_is_stored_as_the_task_spells_it(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    keys = ("a/b", "/a", "a/", "//", "a b", "100%", "%2F", "é/💥", "item/3", "x?y=1#z")
    for number, key in enumerate(keys):
        response = caller.execution(offer, "POST", f"xcoms/{own_path(offer)}/{quote(key)}", number)
        assert response.status == 201, f"the key {key!r} must be accepted, got {describe(response)}"
    for number, key in enumerate(keys):
        response = caller.execution(offer, "GET", f"xcoms/{own_path(offer)}/{quote(key, safe='')}")
        assert response.status == 200, f"the key {key!r} was written, got {describe(response)}"
        found = json.loads(response.body)
        assert (found["key"], found["value"]) == (key, number), f"{key!r} was read as {found}"


def check_a_large_value_passes_beside_a_parked_poll(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    assert caller.session is not None
    value = "x" * (min(caller.session.body_bytes, LARGE_BYTES) - 2)
    ParkedPoll(caller, jobs=[held(offer)])
    path = f"xcoms/{own_path(offer)}/k"
    response = caller.execution(offer, "POST", path, value)
    assert response.status == 201, f"an open poll must not prevent a large value, got {describe(response)}"
    response = caller.execution(offer, "GET", path)
    assert response.status == 200, f"a value that was written can be read, got {describe(response)}"
    assert json.loads(response.body)["value"] == value


LARGE_BYTES = 9 * 1024 * 1024
"""More than the memory that central reserves for the small calls of one worker."""


def check_a_variable_without_a_grant_is_denied_as_the_execution_api_would(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    response = caller.execution(offer, "GET", f"variables/{central.ungranted_variable()}")
    assert response.status == 403, f"this variable is not granted, got {describe(response)}"
    assert PROBLEM_HEADER not in response.headers, (
        "the task gets this answer, not the worker, so it must not be one of central's problems"
    )
    detail = json.loads(response.body)["detail"]
    assert detail["reason"] == "not_granted", f"the worker recognises a denial by its reason, got {describe(response)}"
    assert detail["message"], "the task's log shows users what was denied"
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_the_tasks_own_end_causes_no_stop(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    response = caller.end_task(offer)
    assert response.status in (200, 204), f"the task may end itself, got {describe(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops  # central looks for ended tasks once a second
    assert not stops, "an end that the task itself reported must not be taken for one by a user"
    expect_no_content(caller.report(offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_start_whose_reply_was_lost_can_be_repeated(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    for _ in range(3):
        response = caller.run_task(offer)
        assert response.status == 200, f"the same process may repeat its start, got {describe(response)}"
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_an_end_whose_reply_was_lost_can_be_repeated(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    for _ in range(3):
        response = caller.end_task(offer)
        assert response.status in (200, 204), f"the task may repeat its end, got {describe(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "a repeated end is the task's own, like the first"
    expect_no_content(caller.report(offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_task_that_has_ended_makes_no_more_calls(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    assert caller.end_task(offer).status in (200, 204), "the task may end itself"
    for method, path in (
        ("GET", f"variables/{central.ungranted_variable()}"),
        ("GET", "connections/any"),
        ("POST", "xcoms/d/r/t/k"),
        ("PATCH", f"task-instances/{ti_id(offer)}/run"),
    ):
        expect_refusal(caller.execution(offer, method, path, None if method == "GET" else 1), ProblemCode.INVALID)
    expect_message(caller.log(offer, 0, b"the rest of its log\n"), LogAppended)
    expect_no_content(caller.report(offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_task_ends_in_one_state(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the task may defer"
    expect_refusal(caller.end_task(offer, state="success"), ProblemCode.INVALID)
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the same end may be repeated"


def check_a_repeated_end_of_a_task_that_has_moved_on_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the task may defer"
    central.move_task_on(offer.job_id)
    response = caller.end_task(offer, state="deferred")
    assert response.status in (200, 204), f"a repeated end must not be refused, got {describe(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "the end was the task's own, and a repeat does not change that"
    expect_no_content(caller.report(offer))
    expect_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_refused_end_does_not_count_as_the_tasks_own(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    response = caller.end_task(offer)  # it never ran
    assert response.status >= 400, f"a task that does not run can't end, got {describe(response)}"
    response = caller.end_task(offer)
    assert response.status >= 400, f"a repeat must still be refused, got {describe(response)}"


def check_a_revoked_task_writes_nothing_more(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    central.end_task(offer.job_id)
    stops = caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert stops, "a user ended the task, so its worker must be notified"

    def write() -> Response:
        return caller.execution(offer, "POST", "xcoms/d/r/t/k", 1)

    wait_until(lambda: PROBLEM_HEADER in write().headers)  # central may still use a state that it read a moment ago
    expect_refusal(write(), ProblemCode.INVALID, ProblemCode.SUPERSEDED)


def check_the_gateway_is_closed_once_the_lease_is_over(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_no_content(caller.report(offer))
    expect_refusal(caller.execution(offer, "GET", "variables/any"), ProblemCode.SUPERSEDED)
    expect_refusal(caller.run_task(offer), ProblemCode.SUPERSEDED)
    expect_state(central, offer.job_id, JobState.SUCCEEDED)
