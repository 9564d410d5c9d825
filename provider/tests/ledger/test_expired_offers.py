"""Offers that no worker accepts in time."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from testkit.ledger import (  # isort: skip
    ago,
    change_job,
    claim,
    enlist,
    job_row,
    offered,
    queued,
    running,
)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    expired_offers,
    leases,
)

pytestmark = pytest.mark.usefixtures("database")

RULES = expired_offers.OfferRules(attempts=3, delay=timedelta(seconds=10))


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def test_an_offer_is_made_again_with_growing_delay_and_then_fails() -> None:
    worker = enlist("edge-1")
    job = queued()
    delays = []
    for _ in range(RULES.attempts):
        change_job(job.job_id, not_before=None)
        assert len(claim(worker.claimant())) == 1
        change_job(job.job_id, deadline_at=ago(seconds=1))
        assert _do(expired_offers.expire_offers, RULES) == 1
        row = job_row(job.job_id)
        delays.append(None if row.not_before is None else round((row.not_before - ago()).total_seconds()))
    assert delays == [10, 20, None]
    assert row.state == "failed" and row.ended_at is not None
    assert "offered 3 times" in row.reason and "edge-1" in row.reason


def test_an_offer_within_its_deadline_stays() -> None:
    lease = offered(enlist())
    assert _do(expired_offers.expire_offers, RULES) == 0
    assert job_row(lease.job_id).state == "offered"


def test_a_running_job_never_expires() -> None:
    lease = running(enlist())
    assert _do(expired_offers.expire_offers, RULES) == 0
    assert job_row(lease.job_id).state == "running"


def test_an_expired_offer_can_not_be_accepted() -> None:
    worker = enlist()
    lease = offered(worker)
    change_job(lease.job_id, deadline_at=ago(seconds=1))
    _do(expired_offers.expire_offers, RULES)
    with pytest.raises(leases.Superseded):
        _do(leases.accept, lease)


def test_an_acceptance_that_comes_while_the_offer_expires_is_too_late() -> None:
    lease, late = offered(enlist()), []
    change_job(lease.job_id, deadline_at=ago(seconds=1))

    def accept() -> None:
        try:
            _do(leases.accept, lease)
        except leases.Superseded as error:
            late.append(error)

    thread = threading.Thread(target=accept)
    with compat.transaction() as session:
        assert expired_offers.expire_offers(session, RULES) == 1
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits for the uncommitted change"
    thread.join(10)
    assert len(late) == 1
    assert job_row(lease.job_id).state == "queued"
