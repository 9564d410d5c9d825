"""Runtimes that workers report, and workers that get no jobs because of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import claim, enlist, queued, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import Runtime
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import sessions, site_runtimes, workers
from airflow_remote_provider.ledger.views.waiting import why_waiting
from airflow_remote_provider.ledger.views.workers import WorkerFilter, count_workers, list_workers
from airflow_remote_provider.models import Worker

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)


def _report(worker_id: str, **fields: str) -> str:
    with compat.transaction() as session:
        return site_runtimes.note(session, worker_id, Runtime(**fields))


@pytest.fixture(autouse=True)
def _central_is_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_runtimes, "airflow_version", lambda: "3.3.2")


def test_a_worker_whose_canary_failed_gets_no_job_and_the_next_one_does() -> None:
    queued()
    broken, sound = enlist("broken", slots=9, capabilities=("task", "runtime")), enlist("sound", slots=1)
    assert _report(broken.id, trouble="libfoo.so is missing") == "libfoo.so is missing"
    (claimed,) = claim(broken.claimant(), sound.claimant())
    assert claimed.worker_id == sound.id


def test_a_worker_of_another_airflow_gets_no_job_until_its_runtime_fits() -> None:
    worker = enlist(capabilities=("task", "runtime"))
    queued()
    assert "the Task SDK 1.2.0 (Airflow 3.2.0)" in _report(worker.id, task_sdk="1.2.0", airflow="3.2.0")
    assert claim(worker.claimant()) == []
    assert _report(worker.id, task_sdk="1.3.2", airflow="3.3.2") == ""
    assert len(claim(worker.claimant())) == 1


def test_after_central_s_upgrade_it_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = enlist(capabilities=("task", "runtime"))
    assert _report(worker.id, task_sdk="1.5.0")
    monkeypatch.setattr(site_runtimes, "airflow_version", lambda: "3.5.0")
    with compat.transaction() as session:
        site_runtimes.judge_again(session)
    assert worker_row(worker.id).unfit is None


def test_a_session_without_the_runtime_capability_clears_the_last_report() -> None:
    worker = enlist(capabilities=("task", "runtime"))
    _report(worker.id, trouble="x")
    with compat.transaction() as session:
        sessions.open_session(session, worker.id, session_request(capabilities=("task",)))
    assert worker_row(worker.id).unfit is None


def test_the_list_and_the_explanation_name_the_unfit_worker() -> None:
    worker = enlist("broken", capabilities=("task", "runtime"))
    job = queued()
    _report(worker.id, trouble="libfoo.so\x00 is missing", task_sdk="1.3.2", python="3.11.7")
    with compat.transaction() as session:
        (row,) = list_workers(session, silent_after=SILENT, only=WorkerFilter(flagged=True)).rows
        count = count_workers(session, silent_after=SILENT)
        why = why_waiting(session, job.job_id, silent_after=SILENT)
    assert "libfoo.so" in row.unfit
    assert "\x00" not in row.unfit
    assert row.runtime == {"airflow": "", "task_sdk": "1.3.2", "python": "3.11.7"}
    assert (count.flagged, count.unfit) == (1, 1)
    assert "can't host tasks: broken: libfoo.so" in why


def test_api_processes_are_notified() -> None:
    worker = enlist(capabilities=("task", "runtime"))
    with compat.transaction() as session:
        session.execute(update(Worker).values(changed_at=compat.database_now(session) - timedelta(hours=1)))
        since = compat.database_now(session) - timedelta(minutes=1)
    _report(worker.id, trouble="x")
    with compat.transaction() as session:
        (record,) = workers.changed_since(session, since)
    assert record.unfit == "x"
