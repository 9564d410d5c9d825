"""`airflow remote …` through Airflow's own parser: what it does, what it prints, how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from testkit.ledger import ago, change_job, enlist, job_row, set_last_seen, offered, queued, running, worker_row  # isort: skip

from airflow_remote_protocol.messages import Enrolment
from airflow_remote_protocol.tokens import TokenKind, check_token, hash_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, lost_jobs
from airflow_remote_provider.models import EnrolmentToken

pytestmark = pytest.mark.usefixtures("database")


def _json(run: Callable[..., str], *words: str) -> Any:
    return json.loads(run(*words, "--output", "json"))


def _refused(run: Callable[..., str], *words: str) -> str:
    """Run a command that must fail; return its sentence. SystemExit with a text prints it and exits with 1."""
    with pytest.raises(SystemExit) as refused:
        run(*words)
    assert isinstance(refused.value.code, str) and len(refused.value.code) > 20
    return refused.value.code


# Enrolment


def test_a_new_token_is_printed_alone_so_that_scripts_can_read_it(run: Callable[..., str]) -> None:
    token = run("enrol", "create", "--queues", "a, b,").strip()
    check_token(TokenKind.ENROLMENT, token)
    with compat.transaction() as session:
        (row,) = session.scalars(select(EnrolmentToken))
        assert (row.queues, row.uses_left, row.name_pattern, row.token_hash) == (["a", "b"], 1, "*", hash_token(token))
        enrolled = credentials.enrol(session, token, Enrolment("edge-1"))
    assert enrolled.queues == ["a", "b"]


def test_a_token_has_what_was_asked_for(run: Callable[..., str]) -> None:
    words = ["--queues", "a", "--name-pattern", "edge-*", "--team", "blue", "--uses", "3", "--expires-minutes", "5"]
    created = _json(run, "enrol", "create", *words)
    check_token(TokenKind.ENROLMENT, created["token"])
    assert (created["queues"], created["name_pattern"], created["team"], created["uses_left"]) == (["a"], "edge-*", "blue", 3)
    created_at, expires_at = (datetime.fromisoformat(created[moment]) for moment in ("created_at", "expires_at"))
    assert expires_at - created_at == timedelta(minutes=5) and created["created_by"]


@pytest.mark.parametrize(
    "words",
    [
        ["--queues", " , "],
        ["--queues", "a", "--uses", "0"],
        ["--queues", "a", "--expires-minutes", "0"],
        ["--queues", "a", "--expires-minutes", "nan"],
        ["--queues", "a", "--expires-minutes", "inf"],
    ],
)
def test_a_token_that_no_worker_could_use_is_not_created(run: Callable[..., str], words: list[str]) -> None:
    assert "--" in _refused(run, "enrol", "create", *words)
    assert _json(run, "enrol", "list") == []


def test_tokens_are_listed_without_their_secrets(run: Callable[..., str]) -> None:
    token = run("enrol", "create", "--queues", "a").strip()
    (row,) = _json(run, "enrol", "list")
    table = run("enrol", "list")
    assert row["id"] in table and table.splitlines()[0].startswith("ID")
    for printed in (json.dumps(row), table):
        assert token not in printed and hash_token(token) not in printed


def test_a_token_can_be_revoked(run: Callable[..., str]) -> None:
    run("enrol", "create", "--queues", "a")
    (row,) = _json(run, "enrol", "list")
    assert row["revoked_at"] is None
    assert row["id"] in run("enrol", "revoke", row["id"])
    assert _json(run, "enrol", "list")[0]["revoked_at"] is not None


def test_jobs_are_listed_by_worker_dag_and_run_and_shown(run: Callable[..., str]) -> None:
    held = offered(enlist("edge"), dag_id="a", run_id="r1").job_id
    queued("z", dag_id="b", run_id="r2")
    for only in (("--worker", "edge"), ("--dag", "a"), ("--run", "r1")):
        assert [row["id"] for row in _json(run, "jobs", "list", *only)] == [held]
    assert _json(run, "jobs", "show", held)["worker"] == "edge"
    assert "no job 'nothing'" in _refused(run, "jobs", "show", "nothing")


def test_a_pause_may_last_a_while(run: Callable[..., str]) -> None:
    worker = enlist("edge")
    assert "edge: pause for 2:00:00" in run("workers", "pause", "edge", "--for", "2h")
    assert worker_row(worker.id).intent_until is not None
    assert "not a duration" in _refused(run, "workers", "pause", "edge", "--for", "long")


def test_a_job_is_stopped(run: Callable[..., str]) -> None:
    job = queued()
    assert "retries decide" in run("jobs", "stop", job.job_id, "--reason", "wrong data")
    assert "wrong data" in job_row(job.job_id).reason
    assert "already ended" in _refused(run, "jobs", "stop", job.job_id)


def test_the_reason_why_a_job_waits_is_printed(run: Callable[..., str]) -> None:
    job = queued("nowhere")
    assert "No worker serves the queue 'nowhere'" in run("jobs", "why", job.job_id)


def test_revoking_an_unknown_token_fails_with_a_sentence(run: Callable[..., str]) -> None:
    assert "no enrolment token 'nothing'" in _refused(run, "enrol", "revoke", "nothing")


# Workers


def test_workers_are_listed_with_what_central_observes(run: Callable[..., str]) -> None:
    worker = enlist("edge-1", queues=["a", "b"], slots=8)
    running(worker, "a", slots=3)
    (row,) = _json(run, "workers", "list")
    assert (row["name"], row["presence"], row["used_slots"], row["slots"]) == ("edge-1", "online", 3, 8)
    header, line = run("workers", "list").splitlines()
    assert header.split() == [
        "NAME",
        "PRESENCE",
        "INTENT",
        "USED_SLOTS",
        "SLOTS",
        "QUEUES",
        "LAST_SEEN_AT",
        "CLOCK_OFF_S",
        "UNFIT",
        "ALARM",
    ]
    assert line.split()[:6] == ["edge-1", "online", "serve", "3", "8", "a,b"]


def test_no_listing_shows_a_credential(run: Callable[..., str]) -> None:
    worker = enlist()
    for words in (["workers", "list"], ["workers", "show", worker.name]):
        for printed in (run(*words), run(*words, "--output", "json")):
            assert worker.credential not in printed and hash_token(worker.credential) not in printed


def test_one_worker_is_shown_in_full(run: Callable[..., str]) -> None:
    enlist("edge-1")
    shown = _json(run, "workers", "show", "edge-1")
    assert shown["facts"]["hostname"] == "h"
    assert "edge-1" in run("workers", "show", "edge-1")


@pytest.mark.parametrize(("word", "intent"), [("pause", "pause"), ("resume", "serve"), ("drain", "drain")])
def test_an_intent_is_stored_with_its_reason(run: Callable[..., str], word: str, intent: str) -> None:
    worker = enlist()
    run("workers", word, worker.name, "--reason", "new disk")
    row = worker_row(worker.id)
    assert (row.intent, row.intent_reason, row.intent_revision) == (intent, "new disk", 2)
    assert row.intent_by


def test_slots_can_be_limited_and_freed(run: Callable[..., str]) -> None:
    worker = enlist()
    assert "at most 2 slots" in run("workers", "limit", worker.name, "2")
    assert worker_row(worker.id).slots_limit == 2
    assert "no limit" in run("workers", "limit", worker.name, "-1")
    assert worker_row(worker.id).slots_limit is None


def test_a_worker_can_be_revoked(run: Callable[..., str]) -> None:
    worker = enlist()
    run("workers", "revoke", worker.name)
    assert worker_row(worker.id).revoked_at is not None
    assert [row["presence"] for row in _json(run, "workers", "list")] == ["gone"]


def test_a_worker_can_be_removed(run: Callable[..., str]) -> None:
    run("workers", "remove", enlist().name, "--yes")
    assert _json(run, "workers", "list") == []


def test_removing_an_online_worker_needs_confirmation(run: Callable[..., str]) -> None:
    worker = enlist()
    assert "is online" in (message := _refused(run, "workers", "remove", worker.name)) and "--yes" in message
    assert len(_json(run, "workers", "list")) == 1
    set_last_seen(worker.id, ago(minutes=10))
    run("workers", "remove", worker.name)
    assert _json(run, "workers", "list") == []


def test_a_token_for_a_rebuilt_machine_is_created_in_one_step(run: Callable[..., str]) -> None:
    enlist("plant-7-a", queues=["a", "b"])
    token = run("enrol", "create", "--replaces", "plant-7-a").strip()
    (row,) = (row for row in _json(run, "enrol", "list") if row["replaces"])
    assert (row["name_pattern"], row["queues"], row["uses_left"]) == ("plant-7-a", ["a", "b"], 1)
    assert token.startswith("arenr_")
    for flags in (["--name-pattern", "*"], ["--team", "x"], ["--labels", "a=b"], ["--bundles", "x"], ["--uses", "2"]):
        assert f"{flags[0]}: " in _refused(run, "enrol", "create", "--replaces", "plant-7-a", *flags)
    assert "no worker named 'nobody'" in _refused(run, "enrol", "create", "--replaces", "nobody")


def test_a_worker_with_jobs_is_not_removed(run: Callable[..., str]) -> None:
    worker = enlist()
    offered(worker)
    assert "drain it first" in _refused(run, "workers", "remove", worker.name, "--yes")
    assert len(_json(run, "workers", "list")) == 1


@pytest.mark.parametrize("words", [["show"], ["pause"], ["resume"], ["drain"], ["limit"], ["revoke"], ["remove"]])
def test_an_unknown_worker_fails_with_a_sentence(run: Callable[..., str], words: list[str]) -> None:
    more = ["3"] if words == ["limit"] else []
    assert "'nobody'" in _refused(run, "workers", *words, "nobody", *more)


# Jobs, queues


def test_jobs_are_listed_and_filtered(run: Callable[..., str]) -> None:
    lease = running(enlist("edge-1"), dag_id="d" * 250)
    waiting = queued("other")
    rows = {row["id"]: row for row in _json(run, "jobs", "list")}
    assert set(rows) == {lease.job_id, waiting.job_id}
    assert (rows[lease.job_id]["worker"], rows[lease.job_id]["dag_id"]) == ("edge-1", "d" * 250)
    assert [row["id"] for row in _json(run, "jobs", "list", "--state", "running")] == [lease.job_id]
    assert [row["id"] for row in _json(run, "jobs", "list", "--queue", "other")] == [waiting.job_id]
    assert len(_json(run, "jobs", "list", "--limit", "1")) == 1
    assert "edge-1" in run("jobs", "list")


@pytest.mark.parametrize("words", [["--state", "bogus"], ["--limit", "0"], ["--limit", "-1"]])
def test_a_filter_that_can_match_nothing_is_refused(run: Callable[..., str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run("jobs", "list", *words)
    assert refused.value.code not in (None, 0)


def test_queues_are_listed_with_their_depth(run: Callable[..., str]) -> None:
    worker = enlist(queues=["a"])
    running(worker, "a")
    queued("b")
    rows = {row["queue"]: (row["queued"], row["offered"], row["running"]) for row in _json(run, "queues", "list")}
    assert rows == {"a": (0, 0, 1), "b": (1, 0, 0)}
    assert run("queues", "list").splitlines()[0].split() == [
        "QUEUE",
        "QUEUED",
        "OFFERED",
        "RUNNING",
        "OLDEST_QUEUED_AT",
        "WORKERS",
        "FREE_SLOTS",
        "WAIT_P50_S",
        "WAIT_P95_S",
        "LOST_AFTER_S",
        "BUNDLES",
        "RUNTIME",
        "CHANGED_BY",
    ]


def test_the_rules_of_a_queue_are_set_and_removed(run: Callable[..., str]) -> None:
    assert "4:00:00" in run("queues", "set", "ships", "--lost-after", "4h")
    (row,) = _json(run, "queues", "list")
    assert (row["queue"], row["lost_after_s"]) == ("ships", 14_400)
    run("queues", "unset", "ships")
    assert _json(run, "queues", "list") == []
    assert "queues list" in _refused(run, "queues", "unset", "ships")
    assert "--lost-after soon" in _refused(run, "queues", "set", "ships", "--lost-after", "soon")


def test_the_audit_is_listed(run: Callable[..., str]) -> None:
    worker = enlist("edge-1")
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(hours=1))
    set_last_seen(worker.id, ago(minutes=5))
    with compat.transaction() as session:
        lost_jobs.lose_silent(session)
    (row,) = _json(run, "audit", "list", "--kind", "job-lost", "--worker", "edge-1", "--job", lease.job_id)
    assert (row["times"], row["actor"]) == (1, "central")
    assert "edge-1" in run("audit", "list").splitlines()[1]
    assert _json(run, "audit", "list", "--worker", "another") == []


def test_no_rows_are_an_empty_table_and_an_empty_list(run: Callable[..., str]) -> None:
    for words in (["enrol", "list"], ["workers", "list"], ["jobs", "list"], ["queues", "list"], ["audit", "list"]):
        assert _json(run, *words) == []
        assert len(run(*words).splitlines()) == 1, "the header alone"


def test_a_refused_command_changes_nothing(run: Callable[..., str]) -> None:
    worker = enlist()
    lease = offered(worker)
    _refused(run, "workers", "remove", worker.name, "--yes")
    assert (worker_row(worker.id).revoked_at, job_row(lease.job_id).state) == (None, "offered")
