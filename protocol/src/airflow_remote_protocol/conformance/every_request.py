"""Rules for every request and every response: the marker, the credential, the form of bodies."""

from __future__ import annotations

import json
import uuid

from airflow_remote_protocol.conformance.caller import Caller, ask, enrol, unique
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal, expect_state
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import PollReply, Pong
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER


def check_every_response_carries_the_marker(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    asked = [
        caller.call("GET", "ping"),
        caller.call("GET", "no/such/route"),
        caller.call("GET", "poll"),
        caller.call("POST", "poll", body=b"not json"),
        caller.call("POST", f"jobs/{uuid.uuid4()}/accept", epoch=1),
        ask(central, "GET", "ping", headers={}),
    ]
    # `ask` checks the marker. This only checks that the requests had the intended results.
    assert [response.status < 400 for response in asked] == [True] + [False] * 5, "only the first of these is a success"


def check_an_unknown_route_is_not_found(central: CentralUnderTest) -> None:
    expect_refusal(Caller.connect(central).call("POST", "no/such/route"), ProblemCode.NOT_FOUND)


def check_every_route_without_a_credential_is_unauthorized(central: CentralUnderTest) -> None:
    for method, path in all_routes():
        headers = {MARKER_HEADER: PROTOCOL_VERSION, SESSION_HEADER: unique("session"), EPOCH_HEADER: "1"}
        expect_refusal(ask(central, method, path, headers=headers), ProblemCode.UNAUTHORIZED)


def check_a_mangled_credential_is_unauthorized(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    caller.credential = caller.credential[:-1] + ("0" if caller.credential[-1] != "0" else "1")
    _expect_unauthorized_everywhere(caller)


def check_an_unknown_credential_is_unauthorized(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    caller.credential = make_token(TokenKind.WORKER, uuid.uuid4().bytes.ljust(TOKEN_BYTES, b"\0"))
    _expect_unauthorized_everywhere(caller)


def check_an_enrolment_token_is_not_a_credential(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    caller.credential = central.enrolment_token([caller.queue])
    _expect_unauthorized_everywhere(caller)


def check_a_credential_is_not_an_enrolment_token(central: CentralUnderTest) -> None:
    expect_refusal(enrol(central, token=Caller.enrol(central).credential, name=unique("worker")), ProblemCode.UNAUTHORIZED)


def check_unknown_fields_are_ignored(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    body = b'{"free_slots": 0, "intent_revision": 0, "wait_s": 0.1, "jobs": [], "mood": {"from": "version 1.7"}}'
    expect_message(caller.call("POST", "poll", body=body), PollReply)


def check_unknown_enum_values_are_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    jobs = [{"job_id": offer.job_id, "epoch": offer.epoch, "phase": "dreaming"}]
    poll = {"free_slots": 0, "intent_revision": 0, "wait_s": 0.1, "jobs": jobs}
    expect_refusal(caller.call("POST", "poll", body=json.dumps(poll).encode()), ProblemCode.INVALID)
    path = f"jobs/{offer.job_id}/report"
    expect_refusal(caller.call("POST", path, body=b'{"outcome": "vanished"}', epoch=offer.epoch), ProblemCode.INVALID)
    expect_state(central, offer.job_id, JobState.RUNNING)


def check_a_malformed_body_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    nested = b'{"free_slots": 0, "intent_revision": 0, "wait_s": 0, "mood": ' + b"[" * 100_000
    many = b'{"free_slots": "many", "intent_revision": 0, "wait_s": 0}'
    negative = b'{"free_slots": -1, "intent_revision": 0, "wait_s": 0}'
    for body in (b"", b"not json", b"[]", b"\xff\xfe", many, negative, nested):
        expect_refusal(caller.call("POST", "poll", body=body), ProblemCode.INVALID)


def check_a_job_call_without_an_epoch_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.take_job()
    expect_refusal(caller.call("POST", f"jobs/{offer.job_id}/accept"), ProblemCode.INVALID)
    expect_refusal(caller.call("POST", f"jobs/{offer.job_id}/accept", headers={EPOCH_HEADER: "first"}), ProblemCode.INVALID)
    expect_state(central, offer.job_id, JobState.OFFERED)


def check_ping_returns_the_name_and_the_time(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    pong = expect_message(caller.call("GET", "ping"), Pong)
    assert pong.name == caller.name, f"ping says {pong.name}, the worker is {caller.name}"
    assert pong.time > 1_700_000_000, f"{pong.time} is not a wall clock in seconds since the epoch"


def _expect_unauthorized_everywhere(caller: Caller) -> None:
    for method, path in all_routes():
        if path != "enrol":
            expect_refusal(caller.call(method, path, epoch=1), ProblemCode.UNAUTHORIZED)


def all_routes() -> list[tuple[str, str]]:
    """Return the method and the path of a request of each route of docs/protocol.md."""
    job = f"jobs/{uuid.uuid4()}"
    return [
        ("POST", "enrol"),
        ("POST", "credential"),
        ("POST", "session"),
        ("POST", "session/end"),
        ("POST", "poll"),
        ("GET", "ping"),
        ("POST", "leave"),
        ("POST", "log?stretch=a&offset=0"),
        ("POST", "logs"),
        ("POST", "usage"),
        ("POST", "runtime"),
        ("POST", "inventory"),
        ("GET", f"trees/{'0' * 64}/pack"),
        ("POST", f"trees/{'0' * 64}/blobs"),
        ("GET", f"trees/{'0' * 64}/statements"),
        ("POST", f"{job}/accept"),
        ("POST", f"{job}/decline"),
        ("POST", f"{job}/report"),
        ("POST", f"{job}/log?offset=0"),
        ("POST", f"{job}/event"),
        ("GET", f"{job}/execution/variables/any"),
    ]
