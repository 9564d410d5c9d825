"""SQL, templates and control characters in every string that a worker may send: stored as text, shown harmlessly."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from airflow_remote_protocol.conformance.caller import enrol
from airflow_remote_provider import compat
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.views.jobs import JobFilter, list_jobs
from airflow_remote_provider.models import Worker
from sqlalchemy import func, select

from testkit.attacker import Attacker
from testkit.ledger import job_row, worker_row

TEXTS = [
    "'; DROP TABLE remote_worker; --",
    "\\' OR '1'='1",
    "%s %(id)s {0} {name} $HOME ${IFS}",
    "{{ conn.plant.password }}{% for x in ().__class__.__base__.__subclasses__() %}",
    "<script>alert(1)</script>",
    "[red]markup[/red]",
    "\x1b[2J\x1b]0;owned\x07\x1b[31m",
    "\x9b31m\x9d0;x\x9c",
    "line\r\n2026-01-01 [info] another line",
    "a\x00b",
    "\u202egnp.exe\u2066\u200b",
    "\u2028\u2029\ufeff",
    "\U0001f4a9" * 100,
]
on_every_text = pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))


def _is_harmless(shown: str) -> bool:
    return all(char.isprintable() for char in shown)


def _workers() -> int:
    with compat.transaction() as session:
        return session.scalar(select(func.count()).select_from(Worker)) or 0


@on_every_text
def test_facts_are_stored_as_text_and_shown_harmlessly(attacker: Attacker, text: str, run: Callable[..., str]) -> None:
    before = _workers()
    said = {
        "instance_id": attacker.worker.instance_id,
        "boot_id": str(uuid.uuid4()),
        "protocol": "1.0",
        "capabilities": [text],
        "slots": 1,
        "facts": {"hostname": text, "os": text[:100], "arch": text[:50], "python": text[:50], "version": text[:50]},
    }
    answer = attacker.send("POST", "session", json.dumps(said).encode())
    assert answer.status == 200
    assert _workers() == before
    facts = worker_row(json.loads(answer.body)["worker_id"]).facts
    assert facts["hostname"] == presentable(text, longest=255)
    assert all(map(_is_harmless, facts.values()))
    shown = run("workers", "show", attacker.worker.name) + run("workers", "list")
    assert all(map(_is_harmless, shown.splitlines()))


@on_every_text
def test_reasons_are_stored_as_text_and_shown_harmlessly(attacker: Attacker, text: str, run: Callable[..., str]) -> None:
    said = json.dumps({"outcome": "failed", "exit_code": 1, "reason": text}).encode()
    assert attacker.send_about_job("POST", "report", said).status == 204
    assert job_row(attacker.offer.job_id).reason == presentable(text, longest=2000)
    with compat.transaction() as session:
        only = JobFilter(queue=attacker.worker.queue)
        (ended,) = [job for job in list_jobs(session, only=only).rows if job.reason]
    assert _is_harmless(ended.reason)
    shown = run("jobs", "list", "--queue", attacker.worker.queue, "--limit", "10")
    assert all(map(_is_harmless, shown.splitlines()))
    assert len(shown.splitlines()) == 2, "a heading and one line"


@on_every_text
def test_why_an_offer_is_declined_is_shown_harmlessly(attacker: Attacker, text: str) -> None:
    attacker.central.enqueue(attacker.worker.queue)
    attacker.offer = attacker.worker.await_offer()
    assert attacker.send_about_job("POST", "decline", json.dumps({"reason": text}).encode()).status == 204
    assert _is_harmless(job_row(attacker.offer.job_id).reason)


@on_every_text
def test_no_text_is_a_name_an_id_or_a_checksum(attacker: Attacker, text: str) -> None:
    token = attacker.central.enrolment_token(["q"])
    named = attacker.send("POST", "enrol", json.dumps({"name": text}).encode(), attacker.headers(authorization=f"Bearer {token}"))
    assert named.problem == "invalid"
    checked = attacker.send_about_job("POST", "report", json.dumps({"outcome": "failed", "log_sha256": text}).encode())
    assert checked.problem == "invalid"
    assert enrol(attacker.central, token=token, name="an-honest-" + uuid.uuid4().hex[:8]).status == 201


@on_every_text
def test_unknown_ids_are_handled(attacker: Attacker, text: str) -> None:
    held = [{"job_id": text[:64], "epoch": 1, "phase": "running"}]
    said = {"free_slots": 0, "intent_revision": 99, "wait_s": 0, "jobs": held}
    answer = attacker.send("POST", "poll", json.dumps(said).encode())
    assert answer.status == 200 or answer.problem == "invalid"


@on_every_text
def test_keys_of_xcoms_and_names_of_secrets_are_handled_as_text(attacker: Attacker, text: str) -> None:
    from urllib.parse import quote

    task = job_row(attacker.offer.job_id)
    key = quote(text[:200], safe="")
    for method, path in (
        ("GET", f"variables/{key}"),
        ("GET", f"connections/{key}"),
        ("GET", f"xcoms/{task.dag_id}/{task.run_id}/{task.task_id}/{key}"),
        ("POST", f"xcoms/{task.dag_id}/{task.run_id}/{task.task_id}/{key}"),
        ("GET", f"dags/{key}"),
    ):
        answer = attacker.send_about_job(method, f"execution/{path}", json.dumps(text).encode() if method == "POST" else b"")
        assert answer.status < 500, (path, answer.status, answer.body[:300])
