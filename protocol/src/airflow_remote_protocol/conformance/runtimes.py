"""A worker reports the runtime of its tasks."""

from __future__ import annotations

import json

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import PARKED_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Runtime, RuntimeNoted


def check_a_worker_with_a_faulty_runtime_gets_no_offers_until_it_is_repaired(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    noted = expect_message(caller.call("POST", "runtime", Runtime(trouble="libfoo.so is missing")), RuntimeNoted)
    assert noted.trouble == "libfoo.so is missing"
    job_id = central.enqueue(caller.queue)
    assert caller.poll(free_slots=1, wait_s=PARKED_S).offers == []
    assert expect_message(caller.call("POST", "runtime", Runtime()), RuntimeNoted).trouble == ""
    assert caller.await_offer().job_id == job_id


def check_a_malformed_runtime_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    bad: tuple[object, ...] = ({"trouble": 1}, {"trouble": "x" * 2001}, {"airflow": "x" * 51}, [], None)
    for body in bad:
        expect_refusal(caller.call("POST", "runtime", body=json.dumps(body).encode()), ProblemCode.INVALID)


def check_a_runtime_without_the_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    expect_refusal(caller.call("POST", "runtime", Runtime()), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)
