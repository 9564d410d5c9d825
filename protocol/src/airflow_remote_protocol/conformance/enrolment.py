"""An enrolment token becomes a worker's credential."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, enrol, unique
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolled, Pong


def check_enrolment_gives_a_credential_for_the_tokens_queues(central: CentralUnderTest) -> None:
    queues = [unique("queue"), unique("queue")]
    enrolled = expect_message(enrol(central, token=central.enrolment_token(queues), name=unique("worker")), Enrolled, status=201)
    assert sorted(enrolled.queues) == sorted(queues), f"the token was for {queues}, the worker got {enrolled.queues}"
    expect_message(Caller(central, enrolled).call("GET", "ping"), Pong)


def check_an_enrolment_token_works_as_often_as_it_allows(central: CentralUnderTest) -> None:
    for uses in (1, 2):
        token = central.enrolment_token([unique("queue")], uses=uses)
        for _ in range(uses):
            expect_message(enrol(central, token=token, name=unique("worker")), Enrolled, status=201)
        expect_refusal(enrol(central, token=token, name=unique("worker")), ProblemCode.TOKEN_REFUSED)


def check_an_expired_enrolment_token_is_refused(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")], expires_s=0)
    expect_refusal(enrol(central, token=token, name=unique("worker")), ProblemCode.TOKEN_REFUSED)


def check_a_mangled_enrolment_token_is_unauthorized(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")])
    expect_refusal(enrol(central, token=token[:-2], name=unique("worker")), ProblemCode.UNAUTHORIZED)
    expect_message(enrol(central, token=token, name=unique("worker")), Enrolled, status=201)


def check_a_name_that_the_token_does_not_allow_is_refused_and_costs_no_use(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")], name_pattern="ship-*")
    expect_refusal(enrol(central, token=token, name=unique("plane")), ProblemCode.TOKEN_REFUSED)
    expect_message(enrol(central, token=token, name=unique("ship")), Enrolled, status=201)


def check_a_taken_name_is_refused_and_costs_no_use(central: CentralUnderTest) -> None:
    first = Caller.enrol(central)
    token = central.enrolment_token([unique("queue")])
    expect_refusal(enrol(central, token=token, name=first.name), ProblemCode.NAME_TAKEN)
    expect_message(first.call("GET", "ping"), Pong)
    expect_message(enrol(central, token=token, name=unique("worker")), Enrolled, status=201)


def check_a_malformed_name_is_invalid(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")])
    for name in ("", "../etc", "two words", "a-line-end\n", "x" * 101):
        expect_refusal(enrol(central, token=token, name=name), ProblemCode.INVALID)
