"""A worker reports the usage of its machine and its jobs."""

from __future__ import annotations

import json

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobUsage, MachineUsage, Usage, UsageNoted

MACHINE = MachineUsage(cpus=1.5, cpu_count=4, memory=1 << 30, memory_total=4 << 30, disk_free=1 << 40)


def check_central_keeps_the_newest_usage_and_sends_the_report_interval(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    first, second = (Usage(MACHINE, {"job": JobUsage(cpus, 1 << 20)}) for cpus in (0.5, 1.0))
    assert expect_message(caller.call("POST", "usage", first), UsageNoted).every_s >= 1
    expect_message(caller.call("POST", "usage", second), UsageNoted)
    assert central.usage(caller.name) == second


def check_a_malformed_usage_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    machine = {"cpus": 1, "cpu_count": 4, "memory": 1, "memory_total": 1, "disk_free": 1}
    bad = [
        {},
        {"machine": {**machine, "cpus": -1}},
        {"machine": {**machine, "memory": 2**70}},
        {"machine": {**machine, "disk_free": "much"}},
        {"machine": machine, "jobs": {"": {"cpus": 0, "memory": 0}}},
        {"machine": machine, "jobs": {"job": {"cpus": 0}}},
    ]
    for body in bad:
        expect_refusal(caller.call("POST", "usage", body=json.dumps(body).encode()), ProblemCode.INVALID)
    assert central.usage(caller.name) is None


def check_usage_without_the_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    expect_refusal(caller.call("POST", "usage", Usage(MACHINE)), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)
    assert central.usage(caller.name) is None
