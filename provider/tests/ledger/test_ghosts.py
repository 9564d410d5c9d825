"""Ephemeral workers that ended without leaving: when they are removed, and when not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow_remote_protocol.messages import Enrolment
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, ghosts, lost_jobs
from airflow_remote_provider.ledger.credentials import NewToken

from testkit.ledger import ago, audit_entries, change_worker, enlist, job_row, offered, running, set_last_seen, worker_row  # isort: skip

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(minutes=10)


def _sweep() -> int:
    with compat.transaction() as session:
        return ghosts.remove_ghosts(session, silent_for=SILENT)


def test_a_silent_ephemeral_worker_is_removed_and_its_name_is_free() -> None:
    ghost = enlist("runner", ephemeral=True)
    set_last_seen(ghost.id, ago(minutes=11))
    assert (_sweep(), _sweep()) == (1, 0)
    row = worker_row(ghost.id)
    assert row.revoked_at is not None and row.removed_at is not None and row.session_id is None
    assert "silent" in audit_entries("left")[0].detail
    enlist("runner", ephemeral=True)


def test_others_stay() -> None:
    alive, lasting = enlist("alive", ephemeral=True), enlist("lasting")
    set_last_seen(alive.id, ago(minutes=9))
    set_last_seen(lasting.id, ago(days=9))
    assert _sweep() == 0


def test_one_that_never_opened_a_session_counts_from_its_enrolment() -> None:
    with compat.transaction() as session:
        token, _ = credentials.create_token(session, NewToken(["q"]))
        enrolled = credentials.enrol(session, token, Enrolment("runner", ephemeral=True))
    assert _sweep() == 0
    change_worker(enrolled.worker_id, created_at=ago(minutes=11))
    assert _sweep() == 1


@pytest.mark.parametrize("holds", [offered, running], ids=["offered", "running"])
def test_one_that_holds_a_job_stays_until_the_job_is_lost_or_offered_again(holds: object) -> None:
    ghost = enlist("runner", ephemeral=True, max_jobs=1)
    lease = holds(ghost)  # type: ignore[operator]
    set_last_seen(ghost.id, ago(days=1))
    assert _sweep() == 0
    if holds is running:
        with compat.transaction() as session:
            assert lost_jobs.lose_silent(session) == 0, "accepting it was a contact"
        return
    assert job_row(lease.job_id).state == "offered"


def test_one_whose_job_is_lost_is_removed() -> None:
    ghost = enlist("runner", ephemeral=True, max_jobs=1)
    lease = running(ghost, lost_after_s=60.0)
    set_last_seen(ghost.id, ago(days=1))
    with compat.transaction() as session:
        session.get(type(job_row(lease.job_id)), lease.job_id).accepted_at = ago(hours=2)  # type: ignore[union-attr]
    with compat.transaction() as session:
        assert lost_jobs.lose_silent(session) == 1
    assert _sweep() == 1
    assert job_row(lease.job_id).state == "lost"
