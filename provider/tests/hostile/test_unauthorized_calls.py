"""Every route, called without the right to call it."""

from __future__ import annotations

import time

import pytest
from airflow_remote_protocol.conformance.central import REVOKED_S
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import workers

from testkit.attacker import Attacker
from testkit.ledger import job_row

ROUTES = [
    ("POST", "session"),
    ("POST", "poll"),
    ("GET", "ping"),
    ("POST", "leave"),
    ("GET", "no/such/route"),
    ("DELETE", "poll"),
    ("POST", "jobs/{job}/accept"),
    ("POST", "jobs/{job}/decline"),
    ("POST", "jobs/{job}/report"),
    ("POST", "jobs/{job}/log?offset=0"),
    ("GET", "jobs/{job}/execution/variables/plant"),
    ("PATCH", "jobs/{job}/execution/task-instances/{job}/state"),
]
ABOUT_A_JOB = [(method, path) for method, path in ROUTES if "{job}" in path]
STATE = b'{"state":"failed"}'
REPORT = b'{"outcome":"succeeded","reason":"of a decline, too"}'

on_every_route_of_a_job = pytest.mark.parametrize(("method", "path"), ABOUT_A_JOB)


def _never_issued(kind: TokenKind) -> str:
    return make_token(kind, bytes(range(TOKEN_BYTES)))  # the same in every process: it is in the names of tests


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer garbage",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer " + "A" * 8000,
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
        f"Bearer {_never_issued(TokenKind.WORKER)}",
        f"Bearer {_never_issued(TokenKind.ENROLMENT)}",
        "Bearer \xff\xfe",
    ],
    ids=["none", "empty", "scheme-only", "blank", "garbage", "basic", "long", "jwt", "never-issued", "enrolment", "not-ascii"],
)
def test_every_route_refuses_an_invalid_credential(attacker: Attacker, credential: str | None) -> None:
    for method, path in ROUTES:
        headers = attacker.headers(authorization=credential)
        answer = attacker.send(method, path.format(job=attacker.offer.job_id), REPORT, headers)
        assert (answer.status, answer.problem) == (401, "unauthorized"), (method, path)
    assert job_row(attacker.offer.job_id).state == "running"


def test_a_revoked_credential_is_refused_within_two_seconds(attacker: Attacker) -> None:
    with compat.transaction() as session:
        workers.revoke_worker(session, attacker.worker.name)
    revoked_at = time.monotonic()
    while attacker.send("GET", "ping").status != 403:
        assert time.monotonic() - revoked_at < REVOKED_S, "it is still accepted"
    for method, path in ROUTES:
        answer = attacker.send(method, path.format(job=attacker.offer.job_id), REPORT)
        assert (answer.status, answer.problem) == (403, "revoked"), (method, path)


@pytest.mark.parametrize("credential", [None, "Bearer garbage", f"Bearer {_never_issued(TokenKind.WORKER)}"])
def test_enrolment_without_a_token_is_refused(attacker: Attacker, credential: str | None) -> None:
    answer = attacker.send("POST", "enrol", b'{"name":"intruder"}', attacker.headers(authorization=credential))
    assert answer.status in (401, 403)


def test_a_worker_s_credential_can_not_enrol(attacker: Attacker) -> None:
    assert attacker.send("POST", "enrol", b'{"name":"intruder"}').status == 401


@on_every_route_of_a_job
def test_another_worker_s_job_is_answered_like_an_unknown_one(
    attacker: Attacker, victim: Attacker, method: str, path: str
) -> None:
    said = STATE if path.endswith("/state") else REPORT
    theirs = attacker.send(method, path.format(job=victim.offer.job_id), said)
    none = attacker.send(method, path.format(job="f0f0f0f0-0000-4000-8000-000000000000"), said)
    assert (theirs.status, theirs.problem) == (none.status, none.problem) == (404, "not-found")
    assert len(theirs.body) == len(none.body)
    assert job_row(victim.offer.job_id).state == "running"


@on_every_route_of_a_job
def test_a_stolen_session_needs_its_credential(attacker: Attacker, victim: Attacker, method: str, path: str) -> None:
    headers = attacker.headers(airflow_remote_session=victim.worker.session_id)
    answer = attacker.send(method, path.format(job=victim.offer.job_id), REPORT, headers)
    assert (answer.status, answer.problem) == (409, "session-taken")


@pytest.mark.parametrize("epoch", ["0", "2", "-1", "9" * 4000, "9" * 5000, "1.0", "", "\xb9", "0x1", "None"])
def test_another_epoch_changes_nothing(attacker: Attacker, epoch: str) -> None:
    for method, path in ABOUT_A_JOB:
        headers = attacker.headers(airflow_remote_epoch=epoch)
        answer = attacker.send(method, path.format(job=attacker.offer.job_id), REPORT, headers)
        assert answer.problem in ("superseded", "invalid"), (method, path)
    assert job_row(attacker.offer.job_id).state == "running"


def test_jobs_of_another_queue_are_never_offered(attacker: Attacker, victim: Attacker) -> None:
    waiting = attacker.central.enqueue(victim.worker.queue)
    reply = attacker.worker.poll(free_slots=10_000)
    assert reply.offers == []
    for _ in range(2):
        attacker.send("POST", f"jobs/{waiting}/accept", headers=attacker.headers(airflow_remote_epoch="0"))
        attacker.send("POST", f"jobs/{waiting}/accept", headers=attacker.headers(airflow_remote_epoch="1"))
    assert job_row(waiting).state == "queued"


def test_calls_about_an_ended_job_change_nothing(attacker: Attacker) -> None:
    assert attacker.send_about_job("POST", "report", b'{"outcome":"failed","exit_code":1,"reason":"truly"}').status == 204
    assert attacker.send_about_job("POST", "report", REPORT).status == 204
    row = job_row(attacker.offer.job_id)
    assert (row.state, row.outcome, row.reason) == ("failed", "failed", "truly")
    for path in ("accept", "decline", "execution/variables/plant"):
        method = "GET" if path.startswith("execution") else "POST"
        assert attacker.send_about_job(method, path, b'{"reason":"x"}').problem == "superseded"
    state = f"execution/task-instances/{row.ti_id}/state"
    assert attacker.send_about_job("PATCH", state, b'{"state":"success"}').problem == "superseded"
