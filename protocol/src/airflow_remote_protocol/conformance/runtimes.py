"""What a worker reports of what its tasks run in."""

from __future__ import annotations

import json

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import PARKED_S, CentralUnderTest
from airflow_remote_protocol.conformance.insist import refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Runtime, RuntimeNoted


def check_a_worker_with_trouble_is_offered_nothing_until_it_has_none(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    noted = succeeded(caller.call("POST", "runtime", Runtime(trouble="libfoo.so is missing")), RuntimeNoted)
    assert noted.trouble == "libfoo.so is missing"
    job_id = central.enqueue(caller.queue)
    assert caller.poll(free_slots=1, wait_s=PARKED_S).offers == []
    assert succeeded(caller.call("POST", "runtime", Runtime()), RuntimeNoted).trouble == ""
    assert caller.await_offer().job_id == job_id


def check_a_runtime_that_is_none_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    bad: tuple[object, ...] = ({"trouble": 1}, {"trouble": "x" * 2001}, {"airflow": "x" * 51}, [], None)
    for body in bad:
        refused(caller.call("POST", "runtime", body=json.dumps(body).encode()), ProblemCode.INVALID)


def check_a_runtime_without_the_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    refused(caller.call("POST", "runtime", Runtime()), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)
